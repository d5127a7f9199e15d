"""Lines: a timeline with its ancestors, each up to the LSN where the line left it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tmi_ops.postgres.wal_files import TimelineSwitch

FIRST_TIMELINE = 1


@dataclass(frozen=True)
class Stretch:
    """The part of a timeline that belongs to a line, from LSN `start` to LSN `end`. `end` None: it goes on."""

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

    def timeline_at(self, lsn: int) -> int:
        """The timeline of the line on which the byte at `lsn` was written."""
        return next(item.timeline for item in self.stretches if item.end is None or lsn < item.end)

    def from_lsn(self, lsn: int) -> Iterator[Stretch]:
        """The stretches from `lsn` on. The first begins at `lsn`."""
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
