"""Decides what WAL the archive holds of a line of timelines; nothing else does. Pure.

A line is a path of timelines, so its LSNs are ordered and its archived WAL is a few intervals of LSNs. Every question
about an archive is answered from these intervals: where it ends, its holes, where to resume receiving, how far a
recovery can go from an LSN, and which files it needs.

1. If a segment exists on several timelines, the copy of the newest timeline on the line counts, as in PostgreSQL: a
   timeline's first segment begins with a copy of its parent's bytes.
2. WAL of a timeline after the LSN where the line left it belongs to another history and does not count.
3. A break ends an interval although there is WAL after it, because no replay can pass it.
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
    """A segment that recovery may ask for. `segment` has PostgreSQL's name, `stored` is the name in the archive.

    Bytes from LSN `cut` on belong to a history that the line has left and must not be replayed. None: all belong to the
    line.
    """

    segment: Segment
    stored: str
    cut: int | None = None

    @property
    def name(self) -> str:
        return self.segment.name


@dataclass(frozen=True)
class Hole:
    """WAL of a line that is missing from the archive: `first` to `last` on one timeline, from LSN `start` to `end`.

    `start` is inside `first` if the beginning of that segment is archived.
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
        """Number of segments."""
        return (self.last.end - self.first.start) // self.first.size

    @property
    def names(self) -> str:
        """The names of the files in PostgreSQL."""
        return self.first.name if self.first == self.last else f"{self.first.name} to {self.last.name}"


@dataclass(frozen=True)
class Interval:
    """WAL that can be replayed from LSN `start` to LSN `end`. `ended_by` is the break at `end`, if any."""

    start: int
    end: int
    ended_by: Break | None = None


@dataclass(frozen=True)
class WalRange:
    """The WAL from `start` to `end`, without a hole.

    If there is WAL after `end`, `missing` is the first segment that is absent, or `broken` is the break that ends the
    replay. Both are None if the WAL ends at `end`.
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
        """A sentence on what stops a replay at `end`. Empty if nothing does."""
        if self.broken is not None:
            return self.broken.describe()
        if self.missing is not None:
            return f"{self.missing.name} is missing from the archive, though there is WAL after it."
        return ""

    @property
    def goes_on(self) -> bool:
        """Whether there is WAL after `end` that a replay cannot reach."""
        return self.missing is not None or self.broken is not None


@dataclass(frozen=True)
class _Piece:
    """The part of a line that consecutive archived files cover: `count` segments, or one that is cut or partial."""

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
        """The files that end after `start` and begin before `end`. The piece must have some."""
        if self.count == 1:
            return self
        size = self.first.size
        skipped = max(0, (start - self.start) // size)
        count = min(self.count, max(0, -(-(end - self.start) // size))) - skipped
        begins = self.start + skipped * size
        return replace(self, start=begins, end=begins + count * size, first=self.file(skipped).segment, count=count)


class WalFiles(Sequence[WalFile]):
    """The files of a line in WAL order. Each `WalFile` is created on access."""

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
    """The archived WAL of one line. Created by `coverage`."""

    line: Lineage
    segment_size: int
    breaks: tuple[Break, ...]
    _pieces: tuple[_Piece, ...]

    @cached_property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals in WAL order. Two are adjacent only at a break."""
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
        """The LSN where the archived WAL of this line ends, ignoring holes. None if nothing of it is archived."""
        return self.intervals[-1].end if self.intervals else None

    @property
    def known_end(self) -> int | None:
        """The newest known LSN of the line: archived, or where its newest timeline begins. None if that is 0."""
        begins = self.line.stretches[-1].start
        return max(self.end or 0, begins) or None

    @cached_property
    def files(self) -> WalFiles:
        """All archived files of the line in WAL order, ignoring holes."""
        return WalFiles(self._pieces)

    def reach(self, lsn: int) -> int:
        """The LSN that a replay from `lsn` reaches, up to the next hole or break. `lsn` if the WAL at it is missing."""
        interval = self._interval_at(lsn)
        return lsn if interval is None else interval.end

    def leads_to_the_end(self, lsn: int) -> bool:
        """Whether a replay from `lsn` reaches the newest known LSN, without a hole or a break."""
        return self.reach(lsn) >= (self.known_end or 0)

    def goes_on_behind(self, lsn: int) -> bool:
        """Whether a replay from `lsn` leaves WAL unreached: like `range_from(...).goes_on`, without the range."""
        interval = self._interval_at(lsn)
        broken = interval is not None and interval.ended_by is not None
        return broken or not self.leads_to_the_end(lsn)

    def breaks_after(self, lsn: int) -> tuple[Break, ...]:
        """The breaks after `lsn`."""
        return tuple(item for item in self.breaks if item.lsn > lsn)

    def range_from(self, start: int, lsn: int) -> WalRange:
        """The WAL that continues a backup.

        Args:
            start: where the backup's own WAL begins; becomes `WalRange.start`.
            lsn: where the WAL needed from the archive begins.
        """
        interval = self._interval_at(lsn)
        end, broken = (lsn, None) if interval is None else (interval.end, interval.ended_by)
        missing = self._segment_at(end) if broken is None and end < (self.known_end or 0) else None
        return WalRange(WalFiles(self._pieces_within(lsn, end)), start, end, missing, broken)

    def first_missing(self, lsn: int) -> Segment:
        """The first segment from `lsn` on that is not archived whole. Breaks are ignored."""
        while (interval := self._interval_at(lsn)) is not None:
            lsn = interval.end
        return self._segment_at(lsn)

    def place_to_resume(self, slot_lsn: int) -> Segment:
        """The segment at whose start to resume streaming.

        The archive is trusted up to the slot's LSN, because no LSN is confirmed to the server before the store has the
        WAL. If the slot is ahead of the archive, streaming resumes at the end of the archive.

        Args:
            slot_lsn: the slot's restart_lsn. The server does not guarantee WAL before it.
        """
        return self.first_missing(slot_lsn if self.end is None else min(slot_lsn, self.end))

    def holes(self, lsn: int) -> tuple[Hole, ...]:
        """All missing WAL from `lsn` to the newest known LSN of the line, in WAL order."""
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
        """The interval that has the byte at `lsn`. None if there is none."""
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
    """The coverage of a line by the archive. The result is cached in the archive."""
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
    """The archived files of a stretch of a timeline in WAL order, ignoring holes."""
    return WalFiles(_pieces_of(archive, stretch))


def _pieces_of(archive: WalArchive, stretch: Stretch) -> Iterator[_Piece]:
    """In WAL order. `WalArchive` has no partials of segments that are archived whole."""
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
