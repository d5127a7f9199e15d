"""What is to be said of a shadow, from what was seen of its server, its feeder and the receiver's lease. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from tmi_ops.postgres.wal_files import LONG_HEADER_SIZE, format_lsn, segment_at
from tmi_ops.postgres.wal_records import SHORT_HEADER_SIZE
from tmi_ops.shadow.report import State, TroubleKind
from tmi_ops.wal.lineage import Lineage

# The server waits for WAL in steps of 200 ms; after so long it will not take what it has.
STALLED_WAITING_S = 3.0
# Where nobody tells what the server waits for. One record may take long: a large table that is truncated.
STALLED_SILENT_S = 120.0
PAGE_SIZE = 8192
# What the startup process waits for while it has nothing to replay.
WAITS_FOR_WAL = frozenset({"RecoveryRetrieveRetryInterval", "RestoreCommand", "RecoveryWalAll", "RecoveryWalStream"})
_ANOTHER_HISTORY = " What follows there is of another history."
_OF_ANOTHER_HISTORY = re.compile(r"prev-link|pageaddr|out-of-sequence|timeline|contrecord|system identifier")


@dataclass(frozen=True)
class Level:
    """The receiver's word: all that the server had flushed at `at`, by its clock, ended at `lsn` on `timeline`."""

    timeline: int
    lsn: int
    at: datetime


@dataclass(frozen=True)
class Observed:
    """One look.

    Args:
        replayed: the LSN behind the last record that was replayed; `commit_at`: the newest commit in it.
        waits: whether the server waits for WAL; None: nobody tells.
        still_s: for how long `replayed` has not moved, while more was there.
        handed_to: the LSN behind the last byte that was handed over.
        more: whether a record that can be replayed was handed over behind `replayed`; None: it was, long ago.
        archived_to: how far the archive goes, as far as it is known.
        broke: what the server's log said last of a record that is none.
        level: the receiver's word; None: there is none.
        delayed: it waits on purpose.
    """

    replayed: int
    commit_at: datetime | None
    waits: bool | None
    still_s: float
    handed_to: int
    more: bool | None
    archived_to: int
    broke: str = ""
    level: Level | None = None
    delayed: bool = False


@dataclass(frozen=True)
class Stalled:
    """The server does not take the record at `lsn`, although it is there."""

    kind: TroubleKind
    what: str
    lsn: int
    segment: str


def has_all(seen: Observed) -> bool:
    """Whether everything that was handed over is replayed."""
    return seen.more is False


def state_of(seen: Observed, *, stopped: bool) -> State:
    if stopped:
        return "stopped"
    return "level" if has_all(seen) and seen.handed_to >= seen.archived_to else "catching up"


def verified_to(seen: Observed, line: Lineage, before: datetime | None) -> datetime | None:
    """The newest moment of which everything is known to be replayed.

    The newest commit that was replayed; and, where all is replayed that the receiver had stored when it was level with
    the server, that moment: nothing was committed in between that is not here.

    A commit bears the source's clock, which may have been ahead and put back: what the server had flushed by the
    receiver's moment is not newer than that moment, whatever a commit in it says.
    """
    known = [moment for moment in (before, seen.commit_at) if moment is not None]
    level = seen.level
    if level is None or not _is_of(line, level):
        return max(known, default=None)
    if has_all(seen) and seen.handed_to >= level.lsn:
        known.append(level.at)
    newest = max(known, default=None)
    return newest if newest is None or seen.replayed > level.lsn else min(newest, level.at)


def stalled(seen: Observed, line: Lineage, size: int) -> Stalled | None:
    """Whether the server stands before a record that it will never take."""
    if seen.more is False:
        return None
    limit = STALLED_WAITING_S if seen.waits else STALLED_SILENT_S
    if seen.waits is False and seen.delayed:
        return None
    if seen.still_s < limit or (seen.waits is False and seen.still_s < STALLED_SILENT_S):
        return None
    record = record_behind(seen.replayed, size)
    place = segment_at(line.timeline_at(seen.replayed), seen.replayed, size)
    said = f": {seen.broke}" if seen.broke else ""
    spliced = bool(_OF_ANOTHER_HISTORY.search(seen.broke))
    return Stalled(
        "splice" if spliced else "record that cannot be replayed",
        f"The server does not replay the record at {format_lsn(record)} in {place.name}, though the archive "
        f"goes to {format_lsn(seen.archived_to)}{said}."
        + (" What follows there is of another history." if spliced else ""),
        record,
        place.name,
    )


def record_behind(lsn: int, size: int) -> int:
    """Where the next record begins, when the one before ended at `lsn`: a page begins with its header."""
    if lsn % size == 0:
        return lsn + LONG_HEADER_SIZE
    return lsn + SHORT_HEADER_SIZE if lsn % PAGE_SIZE == 0 else lsn


def _is_of(line: Lineage, level: Level) -> bool:
    return any(
        stretch.timeline == level.timeline and (stretch.end is None or level.lsn <= stretch.end)
        for stretch in line.stretches
    )
