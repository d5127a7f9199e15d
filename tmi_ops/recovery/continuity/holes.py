"""Holes in the WAL of a line of timelines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from tmi_ops.postgres.wal_files import Segment, segment_at
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.lineage import Lineage, Stretch


@dataclass(frozen=True)
class Hole:
    """WAL that is needed and cannot be had: `first` to `last` on one timeline, from LSN `start` to `end`.

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


def holes_on(line: Lineage, archive: WalArchive, start: int) -> tuple[Hole, ...]:
    """All holes of a line between `start` and the newest LSN that the archive has of it, in the line's order."""
    holes: list[Hole] = []
    stretches = list(line.from_lsn(start))
    for stretch, following in zip_longest(stretches, stretches[1:]):
        for hole in _missing(archive, stretch, following):
            if holes and holes[-1].timeline == hole.timeline and holes[-1].end == hole.start:
                hole = Hole(holes[-1].first, hole.last, holes.pop().start, hole.end)
            holes.append(hole)
    return tuple(holes)


def _missing(archive: WalArchive, stretch: Stretch, following: Stretch | None) -> Iterator[Hole]:
    """A hole for each segment of a stretch."""
    size, timeline = archive.segment_size, stretch.timeline
    end = stretch.end if stretch.end is not None else (archive.newest_lsn(timeline) or stretch.start)
    reached = {item.segment.start: item.segment.end for item in archive.segments.get(timeline, ())}
    reached |= {item.segment.start: item.end_lsn for item in archive.partials.get(timeline, ())}
    segment = segment_at(timeline, stretch.start, size)
    while segment.start < end:
        needed = min(segment.end, end)
        have = reached.get(segment.start, segment.start)
        if have < needed and not (needed < segment.end and _begins_next(archive, following, needed)):
            yield Hole(segment, segment, max(have, stretch.start), needed)
        segment = segment.next


def _begins_next(archive: WalArchive, following: Stretch | None, lsn: int) -> bool:
    """Whether the next timeline's first segment, which begins with a copy of these bytes, is there."""
    if following is None:
        return False
    first = segment_at(following.timeline, lsn, archive.segment_size)
    whole = (item.segment for item in archive.segments.get(first.timeline, ()))
    open_ones = (item.segment for item in archive.partials.get(first.timeline, ()))
    return first in {*whole, *open_ones}
