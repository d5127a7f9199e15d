"""Derives a shadow's state from its server, its feeder and the receiver's lease. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from tmi_ops.postgres.wal_files import LONG_HEADER_SIZE, format_lsn, segment_at
from tmi_ops.postgres.wal_records import SHORT_HEADER_SIZE
from tmi_ops.shadow.report import State, TroubleKind
from tmi_ops.wal.lineage import Lineage

# The server retries every 200 ms; after this time it will not accept the WAL that it has.
STALLED_WAITING_S = 3.0
# If it is unknown what the server waits for. A single record may take long, such as truncating a large table.
STALLED_SILENT_S = 120.0
PAGE_SIZE = 8192
# Wait events of the startup process while it has nothing to replay.
WAITS_FOR_WAL = frozenset({"RecoveryRetrieveRetryInterval", "RestoreCommand", "RecoveryWalAll", "RecoveryWalStream"})
_ANOTHER_HISTORY = " The WAL from there on belongs to another history."
_OF_ANOTHER_HISTORY = re.compile(r"prev-link|pageaddr|out-of-sequence|timeline|contrecord|system identifier")


@dataclass(frozen=True)
class Level:
    """The receiver's report: at `at`, by the server's clock, its flushed WAL ended at `lsn` on `timeline`."""

    timeline: int
    lsn: int
    at: datetime


@dataclass(frozen=True)
class Observed:
    """One observation.

    Args:
        replayed: the LSN after the last replayed record; `commit_at`: the newest replayed commit.
        waits: whether the server waits for WAL; None: unknown.
        still_s: for how long `replayed` has not moved although there was more.
        handed_to: the LSN after the last delivered byte.
        more: whether a replayable record after `replayed` was delivered; None: yes, but long ago.
        archived_to: the known end of the archive.
        broke: the server's last log message about an invalid record.
        level: the receiver's report; None: there is none.
        delayed: the server delays commits on purpose.
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
    """The server does not replay the record at `lsn`, although it is available."""

    kind: TroubleKind
    what: str
    lsn: int
    segment: str


def has_all(seen: Observed) -> bool:
    """Whether everything that was delivered is replayed."""
    return seen.more is False


def state_of(seen: Observed, *, stopped: bool) -> State:
    if stopped:
        return "stopped"
    return "level" if has_all(seen) and seen.handed_to >= seen.archived_to else "catching up"


def verified_to(seen: Observed, line: Lineage, before: datetime | None) -> datetime | None:
    """The newest time up to which everything is known to be replayed.

    That is the newest replayed commit or, if everything is replayed that the receiver had stored when it was level with
    the server, the time at which it was level.

    Commit times come from the source's clock, which may have been ahead and put back. WAL that the server had flushed
    at the receiver's time is not newer than that time, whatever its commits say.
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
    """Whether the server is stuck at a record that it will never replay."""
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
        f"goes to {format_lsn(seen.archived_to)}{said}." + (_ANOTHER_HISTORY if spliced else ""),
        record,
        place.name,
    )


def record_behind(lsn: int, size: int) -> int:
    """Where the record after `lsn` begins: after the page header, if `lsn` is at the start of a page."""
    if lsn % size == 0:
        return lsn + LONG_HEADER_SIZE
    return lsn + SHORT_HEADER_SIZE if lsn % PAGE_SIZE == 0 else lsn


def _is_of(line: Lineage, level: Level) -> bool:
    return any(
        stretch.timeline == level.timeline and (stretch.end is None or level.lsn <= stretch.end)
        for stretch in line.stretches
    )
