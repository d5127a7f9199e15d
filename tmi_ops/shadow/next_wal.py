"""Decides which WAL the shadow's server gets next. Pure.

1. The server needs one segment at a time. The archive may have the complete segment, or a `.partial` that grows.
2. A partial is delivered again only when it has grown: a new piece begins where the last one ended (its pieces are also
   listed from time to time). The complete segment is checked for first, because pieces may remain in the archive.
3. If the archive has neither, the WAL ends here or has a gap. Several segments are stored in parallel, so it is a gap
   only if there is WAL after it and the segment has not arrived for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tmi_ops.postgres.wal_files import Segment, segment_at
from tmi_ops.wal.lineage import Lineage

# How long a segment may be absent, with WAL after it, before it counts as missing.
HOLE_AFTER_S = 4.0
# How often to look for new WAL: while it arrives, and after a while without any.
QUICK_LOOK_S, SLOW_LOOK_S, SLOW_AFTER_S = 0.5, 2.0, 60.0
# How often the pieces of a partial are listed while no next piece is found.
LISTED_OPEN_AGAIN_S = 5.0


class Next(Enum):
    """What to do about the wanted segment."""

    WHOLE = "fetch the complete segment"
    PARTIAL = "fetch the partial segment"
    LOOK_BEYOND = "check whether there is WAL after it"
    HOLE = "it is missing"
    WAIT = "nothing has changed"


@dataclass(frozen=True)
class Wanted:
    """A name that a segment may have in the archive. `cut`: the LSN from which its bytes belong to a history that the
    line has left; None: all bytes belong to the line."""

    segment: Segment
    cut: int | None = None


@dataclass(frozen=True)
class Seen:
    """What the archive has of the wanted segment.

    Args:
        whole: whether it is complete.
        partial: identifies the state of its partial; None: there is no partial.
        handed: the state of the partial that was delivered last; None: none was.
        beyond: whether there is WAL after it; None: not checked.
        absent_s: for how long there was neither.
    """

    whole: bool
    partial: str | None = None
    handed: str | None = None
    beyond: bool | None = None
    absent_s: float = 0.0


def what_next(seen: Seen) -> Next:
    """Decide what to do."""
    if seen.whole:
        return Next.WHOLE
    if seen.partial is not None:
        return Next.WAIT if seen.partial == seen.handed else Next.PARTIAL
    if seen.absent_s < HOLE_AFTER_S or seen.beyond is False:
        return Next.WAIT
    return Next.LOOK_BEYOND if seen.beyond is None else Next.HOLE


def names_of(line: Lineage, lsn: int, size: int) -> tuple[Wanted, ...]:
    """The possible names of the segment that contains `lsn`, in PostgreSQL's order: newest timeline first.

    A timeline's first segment begins with a copy of its parent's bytes.
    """
    start = lsn - lsn % size
    found = []
    for stretch in reversed(line.stretches):
        inside = stretch.start < start + size and (stretch.end is None or stretch.end > start)
        if inside:
            cut = stretch.end if stretch.end is not None and stretch.end < start + size else None
            found.append(Wanted(segment_at(stretch.timeline, start, size), cut))
    return tuple(found)


def pause(idle_s: float) -> float:
    """Seconds until the next look, after `idle_s` without new WAL."""
    if idle_s < SLOW_AFTER_S:
        return QUICK_LOOK_S
    return min(SLOW_LOOK_S, QUICK_LOOK_S + (idle_s - SLOW_AFTER_S) / SLOW_AFTER_S)


def can_follow(ours: Lineage, replayed: int, other: Lineage) -> bool:
    """Whether everything replayed along `ours` is also part of `other`."""
    theirs = {stretch.timeline: stretch for stretch in other.stretches}
    for stretch in ours.stretches:
        upto = replayed if stretch.end is None else min(replayed, stretch.end)
        if upto <= stretch.start:
            continue
        found = theirs.get(stretch.timeline)
        if found is None or found.start != stretch.start or (found.end is not None and found.end < upto):
            return False
    return True
