"""An ended job's output to stored answers: looks, repairs, and when to stop looking.

Comes in: the streams of one job. Goes out: answers in the writer, counts, and whether the output
is whole. An output can come back empty, short, with damaged characters or without rows that the
gateway could not convert, always with HTTP 200; so every look is counted against what is expected,
and the stored file itself is the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from nyu_llm_frames._answers.answer import RANK, Answer
from nyu_llm_frames._answers.blocks import BlockSplitter, lines_of
from nyu_llm_frames._answers.google_rows import parse_google_row
from nyu_llm_frames._answers.lines import has_replacement, parse_lines
from nyu_llm_frames._answers.plain import PlainRows, read_block
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames.errors import AuthenticationError, GatewayError

_CLEAN_READS = 4
_DAMAGED = (
    "the text holds U+FFFD, which its prompt does not: characters were damaged on the way, and "
    "reading again did not help"
)
# Also said where there is no output. Any other error is no look at a short output, but none at all.
_NO_OUTPUT = 500


class Streams(Protocol):
    """What a look needs of the gateway."""

    def output(self, batch_id: str) -> Iterator[bytes]: ...
    def content(self, file_id: str) -> Iterator[bytes]: ...
    def stored_bytes(self, file_id: str) -> int | None: ...


class Sink(Protocol):
    """Where answers go."""

    def write(self, answers: list[Answer] | PlainRows) -> None: ...


@dataclass(slots=True)
class _Seen:
    """What one reading of the output came to.

    Attributes
    ----------
    unseen : set of str
        Expected ids that no line had.
    lines : int
        Lines of expected ids.
    orphans, duplicates : int
        Lines of no expected id, and of an id that had one already.
    cut : bool
        Whether the stream broke, or was refused as one that is not there.
    """

    unseen: set[str]
    lines: int = 0
    orphans: int = 0
    duplicates: int = 0
    cut: bool = False


@dataclass(slots=True)
class Harvest:
    """What has been read of one job's output, over all looks of this process.

    Attributes
    ----------
    expected : set of str
        Ids that the job carries.
    rank : dict of str to int
        Rank of the best answer written, by id.
    suspects : dict of str to Answer
        Answers with U+FFFD, not written yet.
    own_damage : callable
        Gives the ids whose prompt itself has U+FFFD; asked when the first such answer comes.
    whole : bool
        Whether the last look saw all rows there are.
    stored_read : bool
        Whether the stored file was surely read to its end: what is still damaged there was
        damaged before it was stored.
    """

    expected: set[str]
    own_damage: Callable[[], set[str]]
    rank: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, Answer] = field(default_factory=dict)
    looks: int = 0
    orphans: int = 0
    duplicates: int = 0
    whole: bool = False
    stored_read: bool = False
    _innocent: set[str] | None = None

    @property
    def unanswered(self) -> int:
        """Ids that no answer was seen for."""
        return len(self.expected) - len(self.rank) - len(self.suspects.keys() - self.rank.keys())

    @property
    def answers(self) -> int:
        """Ids that an answer was seen for."""
        return len(self.expected) - self.unanswered

    def look(self, job: Job, streams: Streams, sink: Sink) -> bool:
        """Read once; return whether there is nothing more to be had.

        Raises
        ------
        GatewayError
            When the output cannot be had at all.
        """
        self.looks += 1
        seen = self._read_output(job, streams, sink)
        self.orphans, self.duplicates = seen.orphans, seen.duplicates
        cut = seen.cut
        # Ids, not lines: a row that comes twice must not hide one that the gateway left out.
        fewer = job.counted is None or len(self.expected) - len(seen.unseen) < job.counted
        # Also where the job counts no more than came: its own count is not trusted with rows.
        if (self._lacks_rows(cut) or self.suspects) and not self.stored_read:
            if job.has_output_file:
                self.stored_read = self._look_at_stored(job, streams, sink)
            elif job.outcome != "completed" and not seen.lines:
                cut = fewer = False  # no output file was made
        self.whole = self.stored_read or not (self._lacks_rows(cut) and (cut or fewer))
        return self.whole and not self.may_mend

    @property
    def may_mend(self) -> bool:
        """Whether a text is damaged that another look may show whole."""
        if self.stored_read or self.looks >= _CLEAN_READS:
            return False
        return any(not self._is_innocent(custom_id) for custom_id in self.suspects)

    def _read_output(self, job: Job, streams: Streams, sink: Sink) -> _Seen:
        """Read the output once and write what is new in it."""
        assert job.batch_id
        seen = _Seen(set(self.expected))
        try:
            for block in _blocks(streams.output(job.batch_id)):
                rows, others = read_block(block)
                parsed = parse_lines(others)
                ids = set(rows.ids)
                if self._are_new(ids, rows, parsed.answers, seen.unseen):
                    seen.lines += len(rows)
                    seen.unseen -= ids
                    self.rank.update(dict.fromkeys(ids, RANK["ok"]))
                    sink.write(rows)
                else:
                    parsed = parse_lines(lines_of(block))
                ours = [a for a in parsed.answers if a.custom_id in self.expected]
                seen.orphans += len(parsed.orphans) + len(parsed.answers) - len(ours)
                seen.lines += len(ours)
                for answer in ours:
                    seen.duplicates += answer.custom_id not in seen.unseen
                    seen.unseen.discard(answer.custom_id)
                self._take(ours, sink, keep_all=self.looks == 1)
        except AuthenticationError:
            raise
        except GatewayError as e:
            seen.cut = True
            if not seen.lines and e.status_code != _NO_OUTPUT:
                # Where the output lies in the provider's own form it may be had all the same.
                if not (job.has_output_file and self._look_at_stored(job, streams, sink)):
                    raise
                self.stored_read = True
        return seen

    def _lacks_rows(self, cut: bool) -> bool:
        """Whether a row may be missing; behind a cut there may be a better one of any id."""
        if not cut:
            return bool(self.unanswered)
        return sum(rank == RANK["ok"] for rank in self.rank.values()) < len(self.expected)

    def _are_new(
        self, ids: set[str], rows: PlainRows, others: list[Answer], unseen: set[str]
    ) -> bool:
        """Whether good rows can be written as they are: expected, seen nowhere else, undamaged."""
        return (
            len(ids) == len(rows)
            and unseen.issuperset(ids)
            # What this look has not seen can only be known from an earlier one.
            and (self.looks == 1 or self.rank.keys().isdisjoint(ids))
            and (self.looks == 1 or self.suspects.keys().isdisjoint(ids))
            and not any(a.custom_id in ids for a in others)
            and not rows.damaged
        )

    def _take(self, answers: Iterable[Answer], sink: Sink, *, keep_all: bool) -> None:
        """Write what is new or better, and in the first look also what comes again."""
        out = []
        for answer in answers:
            known = self.rank.get(answer.custom_id, 0)
            if has_replacement(answer.text):
                if known < RANK["damaged"]:
                    self.suspects.setdefault(answer.custom_id, answer)
                continue
            if RANK[answer.status] >= RANK["truncated"]:
                self.suspects.pop(answer.custom_id, None)
            if RANK[answer.status] > known:
                self.rank[answer.custom_id] = RANK[answer.status]
                out.append(answer)
            elif keep_all:
                out.append(answer)
        sink.write(out)

    def _is_innocent(self, custom_id: str) -> bool:
        if self._innocent is None:
            self._innocent = self.own_damage()
        return custom_id in self._innocent

    def _look_at_stored(self, job: Job, streams: Streams, sink: Sink) -> bool:
        """Read the stored file, byte for byte; return whether all of it was surely read."""
        assert job.output_file_id
        size, rows, strange = 0, 0, 0

        def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                yield chunk

        try:
            for block in _blocks(counted(streams.content(job.output_file_id))):
                found = []
                for line in lines_of(block):
                    row = parse_google_row(line)
                    rows += row is not None
                    strange += row is None
                    answer = None if row is None else row.answer
                    if answer is None or answer.custom_id not in self.expected:
                        continue
                    if answer.custom_id in self.suspects:
                        answer = self._repaired(answer)
                        self.suspects[answer.custom_id] = answer
                    found.append(answer)
                self._take(found, sink, keep_all=False)
        except GatewayError:  # also one that forbids this file alone
            return False
        # With HTTP 200 also comes what is no output: a page, a note of the gateway's, half a file.
        stored = streams.stored_bytes(job.output_file_id)
        return rows > 0 and not strange and stored is not None and size >= stored

    def _repaired(self, answer: Answer) -> Answer:
        """Put the stored text into the answer as the gateway gave it."""
        suspect = self.suspects[answer.custom_id]
        if answer.text is None:
            return suspect
        return msgspec.structs.replace(suspect, text=answer.text)

    def finish(self, sink: Sink) -> None:
        """Write what could not be repaired; flagged, unless its prompt has such characters, too."""
        out = []
        for answer in self.suspects.values():
            if not self._is_innocent(answer.custom_id):
                answer = msgspec.structs.replace(answer, status="damaged", error=_DAMAGED)
            self.rank[answer.custom_id] = RANK[answer.status]
            out.append(answer)
        self.suspects.clear()
        sink.write(out)


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Group a stream into blocks of whole lines."""
    splitter = BlockSplitter()
    try:
        for chunk in chunks:
            block = splitter.feed(chunk)
            if block:
                yield block
    except GatewayError:
        rest = splitter.cut()
        if rest:  # what came before the cut is whole
            yield rest
        raise
    rest = splitter.close()
    if rest:
        yield rest
