"""What reading an output comes to, whichever pieces it comes in.

Comes in: outputs of any rows (good, failed, damaged, twice, torn, of strangers), in one look or
more. Goes out: answers and counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nyu_llm_frames._jobs import output_reader as _harvest
from nyu_llm_frames._jobs.output_reader import OutputReader
from nyu_llm_frames._stages.answers.answer import RANK, Answer
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import GatewayError, GatewayUnavailableError

OURS = [f"r-{i:032x}" for i in range(6)]


class Outputs:
    """Gives one output after the other, the last one for ever; the stored file is not there."""

    stored_refused = True

    def __init__(self, outputs: list[bytes], step: int) -> None:
        self._outputs, self._step = list(outputs), step

    def output(self, batch_id: str) -> Iterator[bytes]:
        data = self._outputs.pop(0) if len(self._outputs) > 1 else self._outputs[0]
        return (data[i : i + self._step] for i in range(0, len(data), self._step))

    def content(self, file_id: str) -> Iterator[bytes]:
        return iter(())

    def stored_bytes(self, file_id: str) -> int | None:
        return None


class Kept:
    """Keeps what is written, as answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def write(self, answers: list[Answer]) -> None:
        self.answers += answers


def line(custom_id: str, kind: str, text: str) -> bytes:
    if kind == "torn":
        return b'{"custom_id": "'
    if kind == "blank":
        return b" "
    body: Any = {"choices": [{"message": {"content": text}, "finish_reason": "STOP"}]}
    if kind == "cut":
        body["choices"][0]["finish_reason"] = "MAX_TOKENS"
    # Not quite the usual form, and good all the same.
    error = " " if kind == "odd" else ""
    row = {"custom_id": custom_id, "response": {"body": body}, "error": error}
    if kind == "failed":
        row |= {"response": {"body": False}, "error": {"error": {"code": 429, "message": "m"}}}
    return json.dumps(row, ensure_ascii=False).encode()


rows = st.builds(
    line,
    st.sampled_from([*OURS, "r-" + "f" * 32, "request-1"]),
    st.sampled_from(["good"] * 6 + ["odd", "odd", "cut", "failed", "torn", "blank"]),
    st.sampled_from(["one", "two", "dam\ufffdged"]),
)
outputs = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    st.lists(rows, max_size=12),
    st.sampled_from([b"\n", b""]),
)


def ended(counted: int | None) -> Job:
    return Job(
        name="j",
        run="r",
        owner="o",
        realm="@v",
        model="m",
        requests=len(OURS),
        file_bytes=1,
        step="ended",
        batch_id="b",
        counted=counted,
        outcome="completed",
    )


def read(looks: list[bytes], step: int, counted: int | None) -> tuple[list[Answer], list[Any]]:
    """Look as often as there are outputs; return what was written, and what each look said."""
    harvest = OutputReader(set(OURS), set)
    job = ended(counted)
    sink, said = Kept(), []
    source = Outputs(looks, step)
    for _ in looks:
        enough = harvest.read_once(job, source, sink)
        said.append((enough, harvest.orphans, harvest.duplicates, harvest.answers, harvest.whole))
    harvest.finish(sink)
    said.append(sorted(zip(harvest.places, harvest.rank, strict=True)))
    return sink.answers, said


@settings(max_examples=300, deadline=None)
@given(
    st.lists(outputs, min_size=1, max_size=3),
    st.integers(1, 400),
    st.none() | st.integers(0, 7),
    st.sampled_from([1, 300]),
)
@example([line(OURS[0], "odd", "one") + b"\n" + line(OURS[0], "good", "two")], 400, 1, 1)
def test_answers_and_counts_do_not_depend_on_what_comes_at_once(
    looks: list[bytes], step: int, counted: int | None, block: int
) -> None:
    whole, expected = read(looks, step, counted)
    make = _harvest.BlockSplitter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_harvest, "BlockSplitter", lambda: make(block))
        assert read(looks, step, counted) == (whole, expected)
    assert {answer.custom_id for answer in whole} <= set(OURS)


def test_a_row_that_comes_twice_hides_none_that_is_left_out() -> None:
    """The gateway counts rows; as many lines came, but of fewer ids."""
    twice = line(OURS[0], "good", "one") + b"\n" + line(OURS[0], "good", "one") + b"\n"
    _, said = read([twice], 400, 2)
    assert said[0][0] is False
    _, said = read([line(OURS[0], "good", "one") + b"\n"], 400, 1)
    assert said[0][0] is True


def test_damage_without_a_stored_file_is_read_four_times_and_then_flagged() -> None:
    damaged = line(OURS[0], "good", "caf\ufffd") + b"\n"
    answers, said = read([damaged] * 4, 400, 1)
    assert [enough for enough, *_ in said[:4]] == [False, False, False, True]
    assert [(a.status, a.text) for a in answers] == [("damaged", "caf\ufffd")]


# --- the stored file ----------------------------------------------------------------------------
def stored(custom_id: str, text: str) -> bytes:
    """A row as the provider writes it."""
    part = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
    response = {"candidates": [part], "usageMetadata": {"promptTokenCount": 1}}
    return json.dumps({"requestId": custom_id, "request": {}, "response": response}).encode()


PAGE = b"<html>" + b"sign in " * 500 + b"</html>"
NOTE = json.dumps({"html-message": "no json " * 500}).encode()
ROWS = b"".join(stored(custom_id, "stored") + b"\n" for custom_id in OURS)
LESS = b"".join(stored(custom_id, "stored") + b"\n" for custom_id in OURS[:-1])


class WithStored(Outputs):
    """An output, and a file in the bucket with the size that is told of it."""

    def __init__(self, output: bytes, content: bytes, told: int | None, *, cut: bool) -> None:
        super().__init__([output], 1 << 20)
        self._content, self._told, self._cut = content, told, cut

    def output(self, batch_id: str) -> Iterator[bytes]:
        yield from super().output(batch_id)
        if self._cut:
            raise GatewayUnavailableError("cut")

    def content(self, file_id: str) -> Iterator[bytes]:
        return iter([self._content] if self._content else [])

    def stored_bytes(self, file_id: str) -> int | None:
        return self._told


def judged(
    output: bytes,
    content: bytes,
    told: int | None,
    counted: int | None,
    *,
    cut: bool = False,
    refused: bool = True,
) -> tuple[bool, dict[str, str]]:
    """Look once; return whether that was enough, and the texts by id.

    Where stored files are known to be refused, it is the output that is read first.
    """
    job = msgspec.structs.replace(ended(counted), output_file_id="file", status="completed")
    assert job.has_output_file
    harvest, sink = OutputReader(set(OURS), set), Kept()
    streams = WithStored(output, content, told, cut=cut)
    streams.stored_refused = refused
    enough = harvest.read_once(job, streams, sink)
    best: dict[str, Answer] = {}
    for answer in sink.answers:
        kept = best.setdefault(answer.custom_id, answer)
        if RANK[answer.status] > RANK[kept.status]:
            best[answer.custom_id] = answer
    return enough, {custom_id: str(answer.text) for custom_id, answer in best.items()}


SHORT = line(OURS[0], "good", "out") + b"\n"


@pytest.mark.parametrize(
    ("content", "told", "enough"),
    [
        (LESS, len(LESS), True),  # the last id has no answer anywhere
        (LESS, None, False),  # a size that is not told proves nothing
        (LESS, len(LESS) + 1, False),
        (ROWS, None, True),  # nothing is left to look for
        (PAGE, 100, False),
        (NOTE, 100, False),
        (b"", 0, False),
        (LESS + PAGE, 100, False),  # rows, and then something else
    ],
)
def test_only_rows_of_the_provider_s_and_all_of_them_end_the_reading(
    content: bytes, told: int | None, enough: bool
) -> None:
    found, texts = judged(SHORT, content, told, None)
    assert found is enough
    if content.startswith(LESS):  # what is there is taken in any case
        there = OURS if content == ROWS else OURS[:-1]
        assert texts == {**dict.fromkeys(there, "stored"), OURS[0]: "out"}


def good(ids: list[str], text: str = "out") -> bytes:
    return b"".join(line(custom_id, "good", text) + b"\n" for custom_id in ids)


FOREIGN = b"".join(stored(f"r-{i:030x}ff", "theirs") + b"\n" for i in range(len(OURS)))
NO_ID = stored("x", "whose").replace(b'"requestId": "x", ', b"") + b"\n"
# The row that the gateway makes of an error behind it.
NOTE_ROW = (
    b'{"id":"batch-1-","response":{"status_code":200,"request_id":"batch-1-","body":{"error":'
    b'{"message":"Invalid response received from vertex-ai: {}"},"provider":"vertex-ai"}}}\n'
)


@pytest.mark.parametrize(
    ("content", "counted", "enough", "texts"),
    [
        # Read whole, and older than the job: the job's own count stays above it.
        (LESS, 6, False, {**dict.fromkeys(OURS[:-1], "stored"), OURS[0]: "out"}),
        (LESS, 5, True, {**dict.fromkeys(OURS[:-1], "stored"), OURS[0]: "out"}),
        # A row without an id is one of those that the job counts.
        (LESS + NO_ID, 6, True, {**dict.fromkeys(OURS[:-1], "stored"), OURS[0]: "out"}),
        # Both forms, by the line.
        (LESS + good(OURS[-1:]), 6, True, {**dict.fromkeys(OURS[1:], "stored"), OURS[5]: "out"}),
        (good(OURS[:-1]), 5, True, dict.fromkeys(OURS[:-1], "out")),
        (good(OURS[:-1]), None, True, dict.fromkeys(OURS[:-1], "out")),
        # Somebody else's rows say nothing about ours.
        (FOREIGN, 6, False, {OURS[0]: "out"}),
        (FOREIGN, None, False, {OURS[0]: "out"}),
        (FOREIGN + stored(OURS[1], "stored"), 6, True, {OURS[0]: "out", OURS[1]: "stored"}),
    ],
)
def test_the_count_of_the_job_stays_above_its_file(
    content: bytes, counted: int | None, enough: bool, texts: dict[str, str]
) -> None:
    found, said = judged(SHORT, content, len(content), counted)
    assert (found, said) == (enough, {**texts, OURS[0]: "out"})
    if content.startswith(FOREIGN) and enough:
        return  # the file is whole by itself, and the output is not read
    found, said = judged(SHORT, content, len(content), counted, refused=False)
    assert found == enough
    assert said.keys() == {*texts, OURS[0]}


class Counting(WithStored):
    """Tells what was asked for."""

    def __init__(self, content: bytes | None, told: int | None) -> None:
        super().__init__(good(OURS), content or b"", told, cut=False)
        self.stored_refused = False
        self.asked: list[str] = []
        self._refuses = content is None

    def output(self, batch_id: str) -> Iterator[bytes]:
        self.asked.append("output")
        return super().output(batch_id)

    def content(self, file_id: str) -> Iterator[bytes]:
        self.asked.append("content")
        if self._refuses:
            raise GatewayUnavailableError("refused", status_code=500)
        yield from super().content(file_id)

    def stored_bytes(self, file_id: str) -> int | None:
        self.asked.append("size")
        return super().stored_bytes(file_id)


@pytest.mark.parametrize(
    ("content", "request_bytes", "asked", "refused"),
    [
        (ROWS, 8000, ["content"], False),
        (ROWS, 9000, ["output"], False),  # the file repeats long requests
        (good(OURS), 8000, ["content"], False),
        (ROWS + PAGE, 8000, ["content", "output"], False),
        (LESS, 8000, ["content", "size"], False),  # the output is the same object
        (ROWS[: len(ROWS) // 2], 8000, ["content", "size", "output"], False),
        (FOREIGN, 8000, ["content", "output"], True),
        (PAGE, 8000, ["content", "output"], True),
        (None, 8000, ["content", "output"], True),
    ],
)
def test_the_stored_file_comes_first_where_the_connection_gives_it(
    content: bytes | None, request_bytes: int, asked: list[str], refused: bool
) -> None:
    job = msgspec.structs.replace(
        ended(6), output_file_id="file", status="completed", file_bytes=6 * request_bytes
    )
    size = len(ROWS if content != LESS else LESS)
    streams, sink = Counting(content, size), Kept()
    harvest = OutputReader(set(OURS), set)
    assert harvest.read_once(job, streams, sink) == (content != LESS)
    assert (streams.asked, streams.stored_refused) == (asked, refused)
    assert {a.status for a in sink.answers} == {"ok"}
    streams.asked.clear()
    OutputReader(set(OURS), set).read_once(job, streams, Kept())
    assert streams.asked == (["output"] if refused else asked)


def test_one_row_is_too_few_to_say_that_stored_files_are_refused() -> None:
    job = msgspec.structs.replace(ended(1), output_file_id="file", requests=1)
    streams = Counting(None, None)
    harvest = OutputReader({OURS[0]}, set)
    assert harvest.read_once(job, streams, Kept())
    assert not streams.stored_refused


@pytest.mark.parametrize(
    ("output", "counted", "cut", "unread"),
    [
        (good(OURS[:4]), 6, False, 2),
        (good(OURS[:4]), 5, False, 1),
        (good(OURS[:4]), 4, False, 0),
        (good(OURS[:4]), 9, False, 2),  # no more than have no answer
        (good(OURS[:4]) + NO_ID, 6, False, 1),
        (good(OURS[:4]) + NOTE_ROW, 6, False, 2),  # a note of the gateway's is no row
        (NOTE_ROW, 1, False, 1),
        (b"", 6, False, 6),
        (PAGE, 6, False, 6),
        # A gateway that does not count: an output that came to its end may be all there is.
        (good(OURS[:4]), None, False, 0),
        (good(OURS[:4]), None, True, 2),
        (b"", None, False, 6),
    ],
)
def test_rows_that_are_counted_and_were_not_to_be_had_are_known(
    output: bytes, counted: int | None, cut: bool, unread: int
) -> None:
    job = msgspec.structs.replace(ended(counted), output_file_id="file", status="completed")
    harvest = OutputReader(set(OURS), set)
    harvest.read_once(job, WithStored(output, b"", None, cut=cut), Kept())
    assert harvest.unread == unread
    assert harvest.whole == (counted == 4)


@pytest.mark.parametrize(("counted", "unread"), [(None, 0), (0, 0), (2, 2)])
def test_a_job_that_failed_answered_what_it_counts(counted: int | None, unread: int) -> None:
    job = msgspec.structs.replace(ended(counted), output_file_id="file", outcome="failed")
    harvest = OutputReader(set(OURS), set)
    harvest.read_once(job, WithStored(b"", b"", None, cut=False), Kept())
    assert harvest.unread == unread


def test_a_good_row_behind_a_cut_takes_the_place_of_a_failed_one() -> None:
    failed = b"".join(line(custom_id, "failed", "") + b"\n" for custom_id in OURS)
    assert judged(failed, b"", None, len(OURS))[0]  # all of them have a row
    assert not judged(failed, b"", None, len(OURS), cut=True)[0]  # and perhaps a better one
    enough, texts = judged(failed, ROWS, len(ROWS), len(OURS), cut=True)
    assert enough
    assert texts == dict.fromkeys(OURS, "stored")
    good = b"".join(line(custom_id, "good", "out") + b"\n" for custom_id in OURS)
    assert judged(good, b"", None, len(OURS), cut=True)[0]  # nothing can be better


# --- rows in further files ---------------------------------------------------------------------
class Bucket(Outputs):
    """A bucket with files beside the one that the gateway names; what is cut ends with an error."""

    stored_refused = False

    def __init__(self, files: dict[str, bytes], cut: str = "") -> None:
        super().__init__([b""], 1 << 20)
        self.files, self.cut = files, cut
        self.asked: list[str] = []

    def content(self, file_id: str) -> Iterator[bytes]:
        self.asked.append(name := file_id.removeprefix("gs://b/job/"))
        if name not in self.files:
            raise GatewayError("not there", status_code=500)
        yield self.files[name]
        if name == self.cut:
            raise GatewayUnavailableError("cut")

    def stored_bytes(self, file_id: str) -> int | None:
        return len(self.files.get(file_id.removeprefix("gs://b/job/"), b""))


def look_further(bucket: Bucket, counted: int | None) -> tuple[OutputReader, list[str]]:
    job = msgspec.structs.replace(
        ended(counted), output_file_id="gs://b/job/predictions.jsonl", status="completed"
    )
    harvest, sink = OutputReader(OURS, set), Kept()
    harvest.read_once(job, bucket, sink)
    bucket.asked.clear()
    harvest.read_further_files(job, bucket, sink)
    return harvest, sorted({answer.custom_id for answer in sink.answers})


def of_three(parts: tuple[bytes, bytes, bytes]) -> dict[str, bytes]:
    return {f"predictions.jsonl-{i:05d}-of-00003": part for i, part in enumerate(parts)}


NUMBERED = {
    "predictions.jsonl": good(OURS[:2]),
    "predictions_00001.jsonl": good(OURS[2:4]),
    "predictions_00002.jsonl": good(OURS[4:]),
}
COUNTED = of_three((good(OURS[:2]), good(OURS[2:4]), good(OURS[4:])))


@pytest.mark.parametrize("files", [NUMBERED, COUNTED])
@pytest.mark.parametrize("counted", [6, None])
def test_rows_that_lie_in_further_files_are_found(
    files: dict[str, bytes], counted: int | None
) -> None:
    harvest, found = look_further(Bucket(files), counted)
    if counted is None and files is NUMBERED:  # the one file came to its end: nothing says more
        assert found == OURS[:2]
        return
    assert found == OURS
    assert (harvest.unread, harvest.whole, harvest.duplicates) == (0, True, 0)


@pytest.mark.parametrize("counted", [6, None])
def test_a_further_file_that_is_cut_leaves_the_rest_unread(counted: int | None) -> None:
    files = of_three((good(OURS[:2]), good(OURS[2:3]), good(OURS[4:])))
    cut = next(name for name in files if "00001-of" in name)
    harvest, found = look_further(Bucket(files, cut), counted)
    assert found == [*OURS[:3], *OURS[4:]]
    assert (harvest.unread, harvest.whole) == (1, False)


def test_further_files_of_somebody_else_and_the_same_again_change_nothing() -> None:
    files = {"predictions.jsonl": good(OURS[:2])}
    files |= {f"predictions_{i:05d}.jsonl": good(OURS[:2]) for i in range(1, 9)}
    bucket = Bucket(files)
    harvest, found = look_further(bucket, 6)
    assert found == OURS[:2]
    assert (harvest.unread, harvest.whole) == (4, False)
    assert len(bucket.asked) == 2
    other = good([f"r-{i:032x}" for i in range(90, 99)])
    harvest, found = look_further(Bucket(files | {"predictions_00001.jsonl": other}), 6)
    assert (found, harvest.orphans, harvest.unread) == (OURS[:2], 0, 4)


def test_an_output_that_is_whole_or_whose_files_are_refused_is_not_looked_for_elsewhere() -> None:
    for counted, refused in ((2, False), (6, True)):
        bucket = Bucket(NUMBERED)
        if refused:
            bucket.stored_refused = True
        look_further(bucket, counted)
        assert bucket.asked == []
