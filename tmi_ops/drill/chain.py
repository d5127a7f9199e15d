"""The heartbeat chain: rows that each carry the hash of the previous row. Checked here without a server.

Each heartbeat is committed before the next one is written. A recovered copy is checked against the source's heartbeats
and the target:

1. The chain is intact: consecutive numbers, correct hashes, each row naming the previous one. A row that was lost,
   changed or inserted breaks it.
2. No heartbeat in the copy was written after the target.
3. No heartbeat committed before the target is missing. A heartbeat was certainly committed before the target when the
   next one was written before the target, or when it was written at least `COMMITTED_WITHIN` (after which the server
   cancels its commit) before the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tmi_ops.postgres.wal_files import format_lsn

GENESIS = "0" * 64
# Four steps lie between reading the clock and the commit; the server cancels each after a second (see heartbeat.py).
COMMITTED_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True)
class HeartbeatRow:
    """One heartbeat. `written_at`: by the server's clock; `lsn`: the end of the WAL before this row's own record."""

    id: int
    written_at: datetime
    lsn: int
    previous: str
    hash: str

    def describe(self) -> str:
        return f"heartbeat {self.id} of {self.written_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f UTC}"


@dataclass(frozen=True)
class Bound:
    """Where a copy must end.

    Args:
        time: the copy has what was committed up to this time; None when the target is not a time.
        lsn: the copy has what was committed before this LSN; None when the target is a time.
        reached_at: commit time of the last replayed transaction; None when no transaction was replayed.
    """

    time: datetime | None = None
    lsn: int | None = None
    reached_at: datetime | None = None

    def describe(self) -> str:
        if self.time is not None:
            return f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f UTC}"
        return f"LSN {format_lsn(self.lsn)}" if self.lsn is not None else "the end of the WAL"


def next_heartbeat(before: HeartbeatRow | None, written_at: datetime, lsn: int) -> HeartbeatRow:
    """The heartbeat after `before`; the first one when `before` is None."""
    number, previous = (before.id + 1, before.hash) if before else (1, GENESIS)
    return HeartbeatRow(number, written_at, lsn, previous, heartbeat_hash(number, written_at, lsn, previous))


def heartbeat_hash(number: int, written_at: datetime, lsn: int, previous: str) -> str:
    """SHA-256, in hex, of `number|time in UTC with microseconds|LSN|hash of the previous heartbeat`."""
    moment = written_at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(f"{number}|{moment}|{format_lsn(lsn)}|{previous}".encode()).hexdigest()


def check_chain(rows: Sequence[HeartbeatRow], target: Bound, known: Sequence[HeartbeatRow] = ()) -> tuple[str, ...]:
    """Find what is wrong with a copy's chain, one sentence each.

    Args:
        rows: the copy's heartbeats, by number.
        target: where the copy must end.
        known: the heartbeats the source still has, by number; empty when it could not be read. Without them, a break
            in the chain is found, but heartbeats missing at its end are not.
    """
    return (*_broken(rows), *_after(rows, target), *_against(rows, target, known))


def _broken(rows: Sequence[HeartbeatRow]) -> Iterator[str]:
    for beat in rows:
        if beat.hash != heartbeat_hash(beat.id, beat.written_at, beat.lsn, beat.previous):
            yield f"{beat.describe()} was changed: its hash does not match its content."
    for one, following in pairwise(rows):
        if following.id != one.id + 1:
            absent = following.id - one.id - 1
            yield f"{absent} {'heartbeat is' if absent == 1 else 'heartbeats are'} missing after {one.describe()}."
        elif following.previous != one.hash:
            yield f"{following.describe()} lacks the hash of the previous heartbeat: the chain is broken there."
    if rows and rows[0].id == 1 and rows[0].previous != GENESIS:
        yield f"{rows[0].describe()} is the first one, but carries the hash of an earlier one."


def _after(rows: Sequence[HeartbeatRow], target: Bound) -> Iterator[str]:
    for beat in rows:
        if _written_after(beat, target):
            yield f"{beat.describe()} was written after the target, {target.describe()}, but is present."


def _written_after(beat: HeartbeatRow, target: Bound) -> bool:
    if target.time is not None:
        return beat.written_at > target.time
    return target.lsn is not None and beat.lsn >= target.lsn


def _against(rows: Sequence[HeartbeatRow], target: Bound, known: Sequence[HeartbeatRow]) -> Iterator[str]:
    present = {beat.id: beat for beat in rows}
    for beat in known:
        copy = present.get(beat.id)
        if copy is not None and copy.hash != beat.hash:
            yield f"{copy.describe()} differs from the source's heartbeat {beat.id}: they have different histories."
            return
    for beat, following in zip(known, [*known[1:], None], strict=False):
        if beat.id not in present and _was_committed_before(beat, following, target):
            yield f"{beat.describe()} was committed before the target, {target.describe()}, but is missing."
    if rows and known and rows[-1].id > known[-1].id:
        yield f"{rows[-1].describe()} is unknown to the source, whose newest is {known[-1].describe()}."


def _was_committed_before(beat: HeartbeatRow, following: HeartbeatRow | None, target: Bound) -> bool:
    """Whether the heartbeat was certainly committed before the target."""
    if target.time is not None:
        if following is not None and following.written_at <= target.time:
            return True
        return beat.written_at + COMMITTED_WITHIN <= target.time
    if target.lsn is not None and following is not None and following.lsn <= target.lsn:
        return True
    return target.reached_at is not None and beat.written_at + COMMITTED_WITHIN <= target.reached_at
