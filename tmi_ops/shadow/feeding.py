"""What the shadow's server is handed next. Facts in, decision out; pure.

1. The server is at one segment at a time. Of it the archive may have the whole, or a `.partial` that grows.
2. A partial is handed over again only when it has grown: there is a piece of it where the last one ended, or, now and
   then, its pieces are listed. Its whole is looked for beside it: pieces whose removal failed stay in the archive.
3. Where neither is there, either the WAL ends here, or it has a hole. Segments are stored several at once, so a hole is
   believed only when there is WAL behind it and the segment has not come for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tmi_ops.postgres.wal_files import Segment, segment_at
from tmi_ops.wal.lineage import Lineage

# How long WAL behind a segment that is absent may lie there before the segment is missing.
HOLE_AFTER_S = 4.0
# How often something new is looked for: while WAL comes, and when none has come for a while.
QUICK_LOOK_S, SLOW_LOOK_S, SLOW_AFTER_S = 0.5, 2.0, 60.0
# How often an open segment's pieces are listed while none is seen behind the last one.
LISTED_OPEN_AGAIN_S = 5.0


class Next(Enum):
    """What to do about the segment that is wanted."""

    WHOLE = "fetch the whole segment"
    PARTIAL = "fetch the open segment"
    LOOK_BEYOND = "see whether there is WAL behind it"
    HOLE = "it is missing"
    WAIT = "nothing has changed"


@dataclass(frozen=True)
class Wanted:
    """A name under which a segment may lie in the archive. `cut`: from this LSN on its bytes are of a history that the
    line has left; None: all belong."""

    segment: Segment
    cut: int | None = None


@dataclass(frozen=True)
class Seen:
    """What the archive has of the wanted segment.

    Args:
        whole: whether it is there whole.
        partial: what tells its open state from another; None: there is none.
        handed: that of the partial that was handed over last; None: none was.
        beyond: whether there is WAL behind it; None: nobody looked.
        absent_s: for how long neither was there.
    """

    whole: bool
    partial: str | None = None
    handed: str | None = None
    beyond: bool | None = None
    absent_s: float = 0.0


def what_next(seen: Seen) -> Next:
    """Decide."""
    if seen.whole:
        return Next.WHOLE
    if seen.partial is not None:
        return Next.WAIT if seen.partial == seen.handed else Next.PARTIAL
    if seen.absent_s < HOLE_AFTER_S or seen.beyond is False:
        return Next.WAIT
    return Next.LOOK_BEYOND if seen.beyond is None else Next.HOLE


def names_of(line: Lineage, lsn: int, size: int) -> tuple[Wanted, ...]:
    """Where the segment that holds `lsn` may lie, as PostgreSQL prefers it: on the newest timeline first.

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
    """Seconds until the next look, when nothing new came for `idle_s`."""
    if idle_s < SLOW_AFTER_S:
        return QUICK_LOOK_S
    return min(SLOW_LOOK_S, QUICK_LOOK_S + (idle_s - SLOW_AFTER_S) / SLOW_AFTER_S)


def can_follow(ours: Lineage, replayed: int, other: Lineage) -> bool:
    """Whether what was replayed along one line up to an LSN is part of another line, too."""
    theirs = {stretch.timeline: stretch for stretch in other.stretches}
    for stretch in ours.stretches:
        upto = replayed if stretch.end is None else min(replayed, stretch.end)
        if upto <= stretch.start:
            continue
        found = theirs.get(stretch.timeline)
        if found is None or found.start != stretch.start or (found.end is not None and found.end < upto):
            return False
    return True
