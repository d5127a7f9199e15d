"""Where receiving goes on: decided from the archive's files, the slot's LSN and the server's timelines alone.

1. The archive is trusted up to the slot's LSN, since the server is told of nothing before the store holds it.
2. From there on the server's own line of timelines is followed, segment by segment, to the first that is missing.
   A timeline that was left counts as complete when it is archived up to the LSN where it was left.
3. A slot that is ahead of the archive is not believed: then the archive's end is where it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tmi_ops.postgres.wal_files import Segment, TimelineSwitch, segment_at
from tmi_ops.wal.archive import WalArchive


@dataclass(frozen=True)
class Stretch:
    """The part of a timeline that belongs to a line: from `start` to `end`; None: it goes on."""

    timeline: int
    start: int
    end: int | None


@dataclass(frozen=True)
class Lineage:
    """A timeline with its ancestors, oldest first."""

    stretches: tuple[Stretch, ...]

    @property
    def timelines(self) -> tuple[int, ...]:
        return tuple(stretch.timeline for stretch in self.stretches)

    def from_lsn(self, lsn: int) -> Iterator[Stretch]:
        """The stretches from `lsn` on, the first beginning there."""
        for item in self.stretches:
            if item.end is None or lsn < item.end:
                yield Stretch(item.timeline, max(lsn, item.start), item.end)


def lineage(timeline: int, history: Sequence[TimelineSwitch]) -> Lineage:
    """The line that leads to `timeline`, from its history."""
    stretches, start = [], 0
    for switch in history:
        stretches.append(Stretch(switch.timeline, start, switch.lsn))
        start = switch.lsn
    return Lineage((*stretches, Stretch(timeline, start, None)))


def archived_end(archive: WalArchive, line: Lineage) -> int | None:
    """How far the archive goes on this line, holes not considered; None where it holds nothing of it.

    What a timeline has beyond the LSN where this line left it is of another history and does not count.
    """
    for item in reversed(line.stretches):
        newest = archive.newest_lsn(item.timeline)
        if newest is not None and newest > item.start:
            return newest if item.end is None else min(newest, item.end)
    return None


def first_missing(archive: WalArchive, line: Lineage, lsn: int) -> Segment:
    """The first segment from that of `lsn` on which the archive does not hold whole, on the line's own timelines.

    The last segment of a timeline that was left is complete when it reaches to where the timeline was left.
    """
    for item in line.from_lsn(lsn):
        segment = segment_at(item.timeline, item.start, archive.segment_size)
        present = {found.segment.start for found in archive.segments.get(item.timeline, ())}
        while segment.start in present and (item.end is None or segment.end < item.end):
            segment = segment.next
        if item.end is None or not _reaches(archive, segment, item.end, present):
            return segment
    raise AssertionError  # the last stretch has no end


def place_to_resume(archive: WalArchive, line: Lineage, slot_lsn: int) -> Segment:
    """The segment from whose beginning the server is asked to stream.

    Args:
        slot_lsn: the slot's restart_lsn, below which the server promises nothing.
    """
    end = archived_end(archive, line)
    return first_missing(archive, line, slot_lsn if end is None else min(slot_lsn, end))


def _reaches(archive: WalArchive, segment: Segment, end: int, present: set[int]) -> bool:
    """Whether `segment`, in which a timeline was left at `end`, is archived so far."""
    if segment.end < end:
        return False
    if segment.start in present:
        return True
    partials = archive.partials.get(segment.timeline, ())
    return any(item.segment == segment and item.end_lsn >= end for item in partials)
