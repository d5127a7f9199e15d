"""What WAL the archive holds of a line of timelines: the one place that decides it. Pure.

A line is a path of timelines, so its LSNs have one order and what is archived of it is a few intervals of them. All
that is asked of an archive is read off these: its end, its holes, where receiving goes on, how far a recovery can go
from anywhere, and the files for it.

1. Of each segment the copy of the newest timeline on the line counts, as PostgreSQL prefers it: a timeline's first
   segment begins with a copy of its parent's bytes.
2. What a timeline holds beyond the LSN where the line left it is of another history and does not count.
3. A break ends an interval although the bytes go on: no replay passes it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import overload

from tmi_ops.postgres.wal_files import Segment, segment_at
from tmi_ops.wal.archive import ArchivedPartial, WalArchive
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.lineage import Lineage, Stretch
from tmi_ops.wal.runs import Run, runs_of


@dataclass(frozen=True)
class WalFile:
    """A segment that recovery may ask for: `segment` as PostgreSQL names it, `stored` as the archive does.

    From LSN `cut` on its bytes belong to a history that the line has left; they must not be replayed. None: all belong.
    """

    segment: Segment
    stored: str
    cut: int | None = None

    @property
    def name(self) -> str:
        return self.segment.name


@dataclass(frozen=True)
class Hole:
    """WAL of a line that is not in the archive: `first` to `last` on one timeline, from LSN `start` to `end`.

    `start` lies inside `first` where that one is archived in part.
    """

    first: Segment
    last: Segment
    start: int
    end: int

    @property
    def timeline(self) -> int:
        return self.first.timeline

    @property
    def segments(self) -> int:
        """How many."""
        return (self.last.end - self.first.start) // self.first.size

    @property
    def names(self) -> str:
        """As PostgreSQL names the files."""
        return self.first.name if self.first == self.last else f"{self.first.name} to {self.last.name}"


@dataclass(frozen=True)
class Interval:
    """WAL that can be replayed from `start` to `end` (LSNs). `ended_by`: the break at `end`, where there is one."""

    start: int
    end: int
    ended_by: Break | None = None


@dataclass(frozen=True)
class WalRange:
    """The WAL from `start` to `end`, without a hole.

    `missing` is the first segment that is absent while there is WAL after it; `broken` the break that ends the replay
    though the WAL goes on. Both None: `end` is where the WAL ends.
    """

    files: Sequence[WalFile]
    start: int
    end: int
    missing: Segment | None
    broken: Break | None = None

    @property
    def size(self) -> int:
        """Bytes of WAL, uncompressed."""
        return self.end - self.start

    def why_it_ends(self) -> str:
        """A sentence on what keeps a replay from going beyond `end`; empty where nothing does."""
        if self.broken is not None:
            return self.broken.words()
        if self.missing is not None:
            return f"{self.missing.name} is missing from the archive, though there is WAL after it."
        return ""

    @property
    def goes_on(self) -> bool:
        """Whether there is WAL after `end` that cannot be reached."""
        return self.missing is not None or self.broken is not None


@dataclass(frozen=True)
class _Piece:
    """What archived files that follow each other cover of a line: `count` segments, or one that is cut or partial."""

    start: int
    end: int
    first: Segment
    count: int = 1
    stored: str | None = None
    cut: int | None = None

    def file(self, number: int) -> WalFile:
        first = self.first
        segment = Segment(first.timeline, first.start + number * first.size, first.size)
        return WalFile(segment, self.stored or segment.name, self.cut)

    def within(self, start: int, end: int) -> _Piece:
        """The files of it that reach beyond `start` and begin before `end`; the piece has some."""
        if self.count == 1:
            return self
        size = self.first.size
        skipped = max(0, (start - self.start) // size)
        count = min(self.count, max(0, -(-(end - self.start) // size))) - skipped
        begins = self.start + skipped * size
        return replace(self, start=begins, end=begins + count * size, first=self.file(skipped).segment, count=count)


class WalFiles(Sequence[WalFile]):
    """Files of a line in its order; each is made when it is asked for."""

    def __init__(self, pieces: Iterable[_Piece]) -> None:
        self._pieces = tuple(pieces)
        self._ends = list(accumulate(piece.count for piece in self._pieces))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[WalFile]:
        for piece in self._pieces:
            yield from map(piece.file, range(piece.count))

    @overload
    def __getitem__(self, index: int) -> WalFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[WalFile, ...]: ...
    def __getitem__(self, index: int | slice) -> WalFile | tuple[WalFile, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        of = bisect_right(self._ends, number)
        return self._pieces[of].file(number - (self._ends[of - 1] if of else 0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self._pieces)


@dataclass(frozen=True)
class Coverage:
    """What is archived of one line. Made by `coverage`."""

    line: Lineage
    segment_size: int
    breaks: tuple[Break, ...]
    _pieces: tuple[_Piece, ...]

    @cached_property
    def intervals(self) -> tuple[Interval, ...]:
        """In the order of the WAL. Two meet only at a break."""
        found: list[Interval] = []
        breaks = list(self.breaks)
        for piece in self._pieces:
            start = piece.start
            if found and found[-1].ended_by is None and start <= found[-1].end:
                start = found.pop().start if piece.end > found[-1].end else start
            if found and piece.end <= found[-1].end:
                continue
            while breaks and breaks[0].lsn <= piece.end:
                at = breaks.pop(0)
                if at.lsn > start:
                    found.append(Interval(start, at.lsn, at))
                    start = at.lsn
            if start < piece.end:
                found.append(Interval(start, piece.end))
        return tuple(found)

    @property
    def end(self) -> int | None:
        """How far the archive goes on this line, holes not considered; None where it holds nothing of it."""
        return self.intervals[-1].end if self.intervals else None

    @property
    def known_end(self) -> int | None:
        """The newest LSN that is known of the line: archived, or told by the history of its newest timeline."""
        begins = self.line.stretches[-1].start
        return max(self.end or 0, begins) or None

    @cached_property
    def files(self) -> WalFiles:
        """All of the line, in its order, holes not considered."""
        return WalFiles(self._pieces)

    def reach(self, lsn: int) -> int:
        """The LSN up to which WAL goes on from `lsn` without a hole or a break; `lsn` where nothing does."""
        interval = self._interval_at(lsn)
        return lsn if interval is None else interval.end

    def leads_to_the_end(self, lsn: int) -> bool:
        """Whether WAL goes on from `lsn` to the newest LSN that is known, without a hole or a break."""
        return self.reach(lsn) >= (self.known_end or 0)

    def goes_on_behind(self, lsn: int) -> bool:
        """Whether a replay from `lsn` on leaves WAL unreached: `range_from(...).goes_on`, without the range."""
        interval = self._interval_at(lsn)
        broken = interval is not None and interval.ended_by is not None
        return broken or not self.leads_to_the_end(lsn)

    def breaks_after(self, lsn: int) -> tuple[Break, ...]:
        """Those that a replay from `lsn` on meets."""
        return tuple(item for item in self.breaks if item.lsn > lsn)

    def range_from(self, start: int, lsn: int) -> WalRange:
        """The WAL that continues a backup.

        Args:
            start: where the backup's own WAL begins, for the record.
            lsn: the place from which on the archive must have what follows.
        """
        interval = self._interval_at(lsn)
        end, broken = (lsn, None) if interval is None else (interval.end, interval.ended_by)
        missing = self._segment_at(end) if broken is None and end < (self.known_end or 0) else None
        return WalRange(WalFiles(self._pieces_within(lsn, end)), start, end, missing, broken)

    def first_missing(self, lsn: int) -> Segment:
        """The first segment from `lsn` on that the archive does not hold whole. A break does not end the archive."""
        while (interval := self._interval_at(lsn)) is not None:
            lsn = interval.end
        return self._segment_at(lsn)

    def place_to_resume(self, slot_lsn: int) -> Segment:
        """The segment from whose beginning the server is asked to stream.

        The archive is trusted up to the slot's LSN, since the server is told of nothing before the store holds it. A
        slot that is ahead of the archive is not believed: then the archive's end is where it goes on.

        Args:
            slot_lsn: the slot's restart_lsn, below which the server promises nothing.
        """
        return self.first_missing(slot_lsn if self.end is None else min(slot_lsn, self.end))

    def holes(self, lsn: int) -> tuple[Hole, ...]:
        """All WAL from `lsn` on to the newest LSN known of the line that is not there, in the line's order."""
        holes: list[Hole] = []
        known = max(self.known_end or 0, lsn)
        for interval in (*self.intervals, Interval(known, known)):
            if interval.start > lsn:
                holes += self._holes_between(lsn, interval.start)
            lsn = max(lsn, interval.end)
        return tuple(holes)

    def _holes_between(self, start: int, end: int) -> Iterator[Hole]:
        for stretch in self.line.from_lsn(start):
            upto = end if stretch.end is None else min(end, stretch.end)
            if stretch.start < upto:
                first = segment_at(stretch.timeline, stretch.start, self.segment_size)
                last = segment_at(stretch.timeline, upto - 1, self.segment_size)
                yield Hole(first, last, stretch.start, upto)

    def _interval_at(self, lsn: int) -> Interval | None:
        """The interval in which WAL goes on at `lsn`."""
        number = bisect_right(self.intervals, lsn, key=lambda interval: interval.start) - 1
        if number < 0 or self.intervals[number].end <= lsn:
            return None
        return self.intervals[number]

    def _pieces_within(self, start: int, end: int) -> tuple[_Piece, ...]:
        first = bisect_right(self._pieces, start, key=lambda piece: piece.end)
        last = bisect_right(self._pieces, end - 1, key=lambda piece: piece.start)
        return tuple(piece.within(start, end) for piece in self._pieces[first:last])

    def _segment_at(self, lsn: int) -> Segment:
        return segment_at(self.line.timeline_at(lsn), lsn, self.segment_size)


def coverage(archive: WalArchive, line: Lineage) -> Coverage:
    """What the archive holds of a line. Asked again, it answers what it found before."""
    if (known := archive.coverages.get(line)) is not None:
        return known
    pieces: list[_Piece] = []
    for stretch in line.stretches:
        for piece in _pieces_of(archive, stretch):
            while pieces and pieces[-1].start >= piece.start and pieces[-1].end <= piece.end:
                pieces.pop()
            if not pieces or pieces[-1].start < piece.start:
                pieces.append(piece)
    found = Coverage(line, archive.segment_size, _breaks_on(archive, line), tuple(pieces))
    archive.coverages[line] = found
    return found


def files_of(archive: WalArchive, stretch: Stretch) -> WalFiles:
    """What is archived of a stretch of a timeline, in its order, holes not considered."""
    return WalFiles(_pieces_of(archive, stretch))


def _pieces_of(archive: WalArchive, stretch: Stretch) -> Iterator[_Piece]:
    """In the order of the WAL. A partial whose segment is there whole is not among the archive's."""
    stored: list[Run | ArchivedPartial] = [*runs_of(archive.segments.get(stretch.timeline, ()))]
    stored += archive.partials.get(stretch.timeline, ())
    for item in sorted(stored, key=lambda item: item.first.start if isinstance(item, Run) else item.segment.start):
        yield from _of_run(item, stretch) if isinstance(item, Run) else _of_partial(item, stretch)


def _of_run(run: Run, stretch: Stretch) -> Iterator[_Piece]:
    size = run.first.size
    begins = max(0, (stretch.start - run.start) // size)
    ends = run.count if stretch.end is None else min(run.count, -(-(stretch.end - run.start) // size))
    cut = stretch.end if stretch.end is not None and stretch.end < run.start + ends * size else None
    whole = ends if cut is None else ends - 1
    if begins < whole:
        yield _Piece(run.start + begins * size, run.start + whole * size, run.segment(begins), whole - begins)
    if cut is not None and begins <= whole:
        yield _Piece(run.start + whole * size, cut, run.segment(whole), cut=cut)


def _of_partial(item: ArchivedPartial, stretch: Stretch) -> Iterator[_Piece]:
    segment = item.segment
    if segment.end <= stretch.start or (stretch.end is not None and segment.start >= stretch.end):
        return
    cut = stretch.end if stretch.end is not None and stretch.end < segment.end else None
    end = item.end_lsn if cut is None else min(item.end_lsn, cut)
    if end > segment.start:
        yield _Piece(segment.start, end, segment, stored=item.name, cut=cut)


def _breaks_on(archive: WalArchive, line: Lineage) -> tuple[Break, ...]:
    on_line = [
        item
        for item in archive.breaks
        for stretch in line.stretches
        if stretch.timeline == item.timeline
        and stretch.start < item.lsn
        and (stretch.end is None or item.lsn <= stretch.end)
    ]
    return tuple(sorted(on_line, key=lambda item: item.lsn))
