"""Reads the output of an ended job into stored answers, and decides when to stop reading it.

Comes in: the streams of one job. Goes out: answers in the writer, counts, and whether the output
is whole. There are two sources: the rows as the gateway converts them, and the stored file.
Both can be refused, empty, cut or short, mostly with HTTP 200, and the conversion also damages
characters and leaves rows out. So the same rules read both, in either form of a line, and the
rows that were read are compared with the job's counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import InitVar, dataclass, field
from typing import Protocol

import msgspec

from nyu_llm_frames._stages.answers.answer import RANK, Answer
from nyu_llm_frames._stages.answers.blocks import BlockSplitter
from nyu_llm_frames._stages.answers.lines import has_replacement, parse_lines
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import AuthenticationError, GatewayError

_CLEAN_READS = 4
_DAMAGED = (
    "the text has U+FFFD, and its prompt does not: characters were damaged on the way, and "
    "reading again did not help"
)
# HTTP 500 also means that there is no output yet. Any other error does not count as a reading.
_NO_OUTPUT = 500
# Stored rows repeat the request: where requests are longer, the gateway's rows are shorter.
_LONG_REQUEST_BYTES = 8192
_TELLING_ROWS = 2
# The gateway names one file of a job, always with this name. Google may have written more.
_OUTPUT_NAME, _MOST_FILES = "predictions.jsonl", 8
_RANK = dict(RANK)  # looked up for every row


class Streams(Protocol):
    """What a reading needs from the gateway.

    Attributes
    ----------
    stored_refused : bool
        Whether this connection is known to refuse stored files.
    """

    stored_refused: bool

    def output(self, batch_id: str) -> Iterator[bytes]: ...
    def content(self, file_id: str) -> Iterator[bytes]: ...
    def stored_bytes(self, file_id: str) -> int | None: ...


class Sink(Protocol):
    """Where answers go."""

    def write(self, answers: list[Answer]) -> None: ...


@dataclass(slots=True)
class _Reading:
    """The result of one reading of an output, from either source.

    Attributes
    ----------
    seen : bytearray
        1 for each expected id that appeared in a line, by the id's place.
    exact : bool
        Whether it is the stored file, byte for byte.
    ours : int
        Lines of expected ids.
    orphans : int
        Rows of no expected id.
    strange : int
        Lines that are not rows: from a page, torn, too long.
    size : int
        Bytes that came.
    ended : bool
        Whether it was read to its end, as far as can be known.
    error : GatewayError or None
        What interrupted the reading, or refused it.
    """

    seen: bytearray
    exact: bool = False
    ours: int = 0
    orphans: int = 0
    strange: int = 0
    size: int = 0
    ended: bool = False
    error: GatewayError | None = None

    @property
    def duplicates(self) -> int:
        """Lines of an expected id that had one already."""
        return self.ours - self.seen.count(1)


@dataclass(slots=True)
class OutputReader:
    """What has been read of one job's output, over all readings of this process.

    Attributes
    ----------
    expected : iterable of str
        Distinct ids that the job carries.
    places : dict of str to int
        The same, numbered from 0.
    rank : bytearray
        Rank of the best answer written, by the id's place; 0 without one.
    suspects : dict of str to Answer
        Answers that the gateway's conversion gave U+FFFD, not written yet: another reading may
        have them intact.
    own_damage : callable
        Returns the ids with U+FFFD in their prompt; called when the first such answer comes.
    orphans, duplicates : int
        Of the last reading.
    whole : bool
        Whether the last reading found all rows.
    unread : int
        Rows that the job counts as answered and that no reading has found.
    """

    expected: InitVar[Iterable[str]]
    own_damage: Callable[[], set[str]]
    places: dict[str, int] = field(init=False)
    rank: bytearray = field(init=False)
    suspects: dict[str, Answer] = field(default_factory=dict)
    looks: int = 0
    orphans: int = 0
    duplicates: int = 0
    whole: bool = False
    unread: int = 0
    _innocent: set[str] | None = None
    _counted: list[_Reading] = field(default_factory=list)

    def __post_init__(self, expected: Iterable[str]) -> None:
        self.places = {custom_id: place for place, custom_id in enumerate(expected)}
        self.rank = bytearray(len(self.places))

    @property
    def unanswered(self) -> int:
        """Ids without an answer so far."""
        suspected = sum(not self.rank[self.places[custom_id]] for custom_id in self.suspects)
        return self.rank.count(0) - suspected

    @property
    def answers(self) -> int:
        """Ids with an answer."""
        return len(self.places) - self.unanswered

    def read_once(self, job: Job, streams: Streams, sink: Sink) -> bool:
        """Read once; return whether nothing is left to read.

        Raises
        ------
        GatewayError
            When the output cannot be read at all.
        """
        self.looks += 1
        output = None
        stored = self._read_stored(job, streams, sink) if _is_cheaper(job, streams) else None
        if stored is None or not stored.ended:
            output = self._read(streams.output(str(job.batch_id)), self._reading(), sink)
            if isinstance(output.error, AuthenticationError):
                raise output.error
            if stored is not None:
                # A file that does not exist yet and one of an unreadable type are refused alike.
                streams.stored_refused |= not stored.ours and output.ours >= _TELLING_ROWS
            elif job.has_output_file and (self.suspects or self._lacks_rows(output)):
                stored = self._read_stored(job, streams, sink)
            refused = None if output.ours else output.error
            instead = stored is not None and stored.ended  # it may still be readable
            if refused is not None and not instead and refused.status_code != _NO_OUTPUT:
                raise refused
        readings = [reading for reading in (stored, output) if reading is not None]
        # A file without any row of ours is not trusted at all.
        counted = [r for r in readings if r.ours or not r.exact]
        self.orphans = max(r.orphans for r in counted)
        self.duplicates = max(r.duplicates for r in counted)
        self.whole = any(self._is_whole(reading, job) for reading in readings)
        self._counted = counted
        self.unread = 0 if self.whole else self._count_unread(counted, job)
        return self.whole and not self.may_repair

    def read_further_files(self, job: Job, streams: Streams, sink: Sink) -> None:
        """Look for unread rows in files beside the one that the gateway names."""
        if not self.unread or not job.has_output_file or streams.stored_refused:
            return
        beside, ended = self._reading(exact=True), True
        for series in further_files(str(job.output_file_id)):
            for file_id in series:
                before, beside.ended = beside.seen.count(1), False
                self._read(streams.content(file_id), beside, sink)
                if beside.seen.count(1) == before:
                    break  # missing, or the same file again
                ended &= beside.ended
            if beside.ours:
                break
        else:
            return
        self.duplicates += beside.duplicates
        self.orphans += beside.orphans
        beside.orphans, beside.ended = self.orphans, ended
        self.unread = self._count_unread([*self._counted, beside], job)
        self.whole = not self.unread and (job.counted is not None or not self.unanswered)

    @property
    def may_repair(self) -> bool:
        """Whether another reading may have a damaged text intact."""
        if self.looks >= _CLEAN_READS:
            return False
        return any(not self._is_innocent(custom_id) for custom_id in self.suspects)

    def _is_whole(self, reading: _Reading, job: Job) -> bool:
        """Whether a reading leaves nothing to read: the one place that decides it."""
        nothing_made = not job.has_output_file and job.outcome != "completed"
        if nothing_made and not reading.ours:
            return True
        if not self._lacks_rows(reading):
            return True
        if job.counted is None:  # then only a file that was surely read to its end shows it
            return reading.ended and reading.exact
        return reading.ended and self.answers + reading.orphans >= job.counted

    def _count_unread(self, readings: list[_Reading], job: Job) -> int:
        """Count the rows that are answered, as far as is known, but could not be read."""
        if job.counted is None:
            if job.outcome == "failed" and not self.answers:
                return 0  # it failed as a whole: nothing was answered
            # The gateway does not count. An output that came to its end may be all there is.
            return 0 if any(r.ended and r.ours for r in readings) else self.unanswered
        found = self.answers + max(r.orphans for r in readings)
        return min(self.unanswered, max(0, job.counted - found))

    def _lacks_rows(self, reading: _Reading) -> bool:
        """Whether a row may be missing; after an interruption any id may have a better one."""
        if reading.ended and not reading.seen.count(0):
            return False
        return self.rank.count(RANK["ok"]) < len(self.rank)

    def _reading(self, *, exact: bool = False) -> _Reading:
        return _Reading(bytearray(len(self.places)), exact)

    def _read_stored(self, job: Job, streams: Streams, sink: Sink) -> _Reading:
        """Read the stored file once; its rows, or its size, show whether it was read to its end."""
        file_id = str(job.output_file_id)
        reading = self._reading(exact=True)
        self._read(streams.content(file_id), reading, sink)
        if not reading.ours or reading.strange:
            reading.ended = False  # a web page, a message of the gateway, a file of another job
        elif reading.ended and self._lacks_rows(reading):
            size = streams.stored_bytes(file_id)
            reading.ended = size is not None and reading.size >= size
        return reading

    def _read(self, chunks: Iterator[bytes], reading: _Reading, sink: Sink) -> _Reading:
        """Read a stream of lines and write the new answers."""
        first = not self.answers
        splitter = BlockSplitter()
        try:
            for lines in _blocks(chunks, splitter, reading):
                sink.write(self._take_lines(lines, reading, keep_all=first))
            reading.ended = True
        except GatewayError as e:
            reading.error = e
        reading.strange += splitter.dropped
        return reading

    def _take_lines(self, lines: list[bytes], reading: _Reading, *, keep_all: bool) -> list[Answer]:
        """Return answers that are new or better; in the first reading duplicates as well."""
        parsed = parse_lines(lines)
        rows_of_none = sum(orphan.is_row for orphan in parsed.orphans)
        reading.orphans += rows_of_none
        reading.strange += len(parsed.orphans) - rows_of_none
        place_of, best, seen, out = self.places.get, self.rank, reading.seen, []
        for answer in parsed.answers:
            place = place_of(answer.custom_id)
            if place is None:
                reading.orphans += 1
                continue
            reading.ours += 1
            seen[place] = 1
            known = best[place]
            if has_replacement(answer.text):
                if not reading.exact:
                    if known < _RANK["damaged"]:
                        self.suspects.setdefault(answer.custom_id, answer)
                    continue
                answer = self._flagged(answer)  # damaged before it was stored
            rank = _RANK[answer.status]
            if rank >= _RANK["truncated"] and self.suspects:
                self.suspects.pop(answer.custom_id, None)
            if rank > known:
                best[place] = rank
                out.append(answer)
            elif keep_all:
                out.append(answer)
        return out

    def _flagged(self, answer: Answer) -> Answer:
        """Flag a text with U+FFFD, unless its prompt has it too."""
        if self._is_innocent(answer.custom_id):
            return answer
        return msgspec.structs.replace(answer, status="damaged", error=_DAMAGED)

    def _is_innocent(self, custom_id: str) -> bool:
        if self._innocent is None:
            self._innocent = self.own_damage()
        return custom_id in self._innocent

    def finish(self, sink: Sink) -> None:
        """Write what could not be repaired."""
        out = [self._flagged(answer) for answer in self.suspects.values()]
        for answer in out:
            place = self.places[answer.custom_id]
            self.rank[place] = max(self.rank[place], RANK[answer.status])
        self.suspects.clear()
        sink.write(out)


def further_files(file_id: str) -> Iterator[Iterator[str]]:
    """Name the files in which more rows may be, in series; a series ends with the first missing
    file.

    Examples
    --------
    >>> [next(series) for series in further_files("gs://b/predictions.jsonl")][:2]
    ['gs://b/predictions_00001.jsonl', 'gs://b/predictions.jsonl-00000-of-00002']
    """
    stem, name, rest = file_id.rpartition(_OUTPUT_NAME)
    if not name or rest:
        return
    yield (f"{stem}predictions_{number:05d}.jsonl" for number in itertools.count(1))
    for total in range(2, _MOST_FILES + 1):
        yield (f"{file_id}-{number:05d}-of-{total:05d}" for number in range(total))


def _is_cheaper(job: Job, streams: Streams) -> bool:
    """Whether the stored file is read first: exact, and a tenth of the work for both sides."""
    short = job.file_bytes <= _LONG_REQUEST_BYTES * job.requests
    return job.has_output_file and short and not streams.stored_refused


def _blocks(
    chunks: Iterator[bytes], splitter: BlockSplitter, reading: _Reading
) -> Iterator[list[bytes]]:
    """Split a stream into lists of lines."""
    try:
        for chunk in chunks:
            reading.size += len(chunk)
            block = splitter.feed(chunk)
            if block:
                yield block
    except GatewayError:
        rest = splitter.cut()
        if rest:  # what came before the interruption is whole
            yield rest
        raise
    rest = splitter.close()
    if rest:
        yield rest
