"""The heartbeat chain: rows each of which carries the hash of the one before. What it proves, decided without a server.

Beats are written one after the other, so a beat was committed before the next one was written. A copy of the database
recovered to a target is therefore held against the beats that the source has, and against the target:

1. The chain itself: numbers without a gap, each hash right, each naming the one before. A row that was lost, changed or
   slipped in breaks it.
2. Nothing after the target: no beat was written after it.
3. Nothing before the target missing: a beat of the source that is absent from the copy was committed after the target.
   That is certain when the next beat was written before the target, or when it was written so long before that its
   commit, which the server is told to give up after `COMMITTED_WITHIN`, was too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tmi_ops.postgres.wal_files import format_lsn

GENESIS = "0" * 64
# From the look at the clock to the commit there are four steps, each of which the server ends after a second (see
# heartbeat.py).
COMMITTED_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True)
class Beat:
    """One row. `written_at`: the server's clock; `lsn`: where its WAL ended then, before this row's own."""

    id: int
    written_at: datetime
    lsn: int
    previous: str
    hash: str

    def words(self) -> str:
        return f"beat {self.id} of {self.written_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f UTC}"


@dataclass(frozen=True)
class Bound:
    """Where a copy must end.

    Args:
        time: what was committed until then is part of it; None where the target is no time.
        lsn: what was committed before it is part of it; None where the target is a time.
        reached_at: when the last transaction that was replayed was committed; None: none was.
    """

    time: datetime | None = None
    lsn: int | None = None
    reached_at: datetime | None = None

    def words(self) -> str:
        if self.time is not None:
            return f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f UTC}"
        return f"LSN {format_lsn(self.lsn)}" if self.lsn is not None else "the end of the WAL"


def next_beat(before: Beat | None, written_at: datetime, lsn: int) -> Beat:
    """The beat that follows `before`; None: the first one."""
    number, previous = (before.id + 1, before.hash) if before else (1, GENESIS)
    return Beat(number, written_at, lsn, previous, beat_hash(number, written_at, lsn, previous))


def beat_hash(number: int, written_at: datetime, lsn: int, previous: str) -> str:
    """SHA-256, in hex, of `number|time in UTC with microseconds|LSN|hash of the beat before`."""
    moment = written_at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(f"{number}|{moment}|{format_lsn(lsn)}|{previous}".encode()).hexdigest()


def check_chain(rows: Sequence[Beat], target: Bound, known: Sequence[Beat] = ()) -> tuple[str, ...]:
    """What is wrong with a copy's chain, a sentence each; empty when nothing is.

    Args:
        rows: the copy's beats, by number.
        target: where the copy must end.
        known: the source's beats, by number, as far back as it still has them; empty when it could not be asked.
            Without them what is missing at the chain's end cannot be seen, but what is broken in it can.
    """
    return (*_broken(rows), *_after(rows, target), *_against(rows, target, known))


def _broken(rows: Sequence[Beat]) -> Iterator[str]:
    for beat in rows:
        if beat.hash != beat_hash(beat.id, beat.written_at, beat.lsn, beat.previous):
            yield f"{beat.words()} is not what was written: its hash does not fit its content."
    for one, following in pairwise(rows):
        if following.id != one.id + 1:
            absent = following.id - one.id - 1
            yield f"{absent} {'beat is' if absent == 1 else 'beats are'} missing after {one.words()}."
        elif following.previous != one.hash:
            yield f"{following.words()} does not name the hash of the beat before it: the chain is broken there."
    if rows and rows[0].id == 1 and rows[0].previous != GENESIS:
        yield f"{rows[0].words()} is the first one, but names a beat before it."


def _after(rows: Sequence[Beat], target: Bound) -> Iterator[str]:
    for beat in rows:
        if _written_after(beat, target):
            yield f"{beat.words()} was written after the target, {target.words()}, and is present."


def _written_after(beat: Beat, target: Bound) -> bool:
    if target.time is not None:
        return beat.written_at > target.time
    return target.lsn is not None and beat.lsn >= target.lsn


def _against(rows: Sequence[Beat], target: Bound, known: Sequence[Beat]) -> Iterator[str]:
    present = {beat.id: beat for beat in rows}
    for beat in known:
        copy = present.get(beat.id)
        if copy is not None and copy.hash != beat.hash:
            yield f"{copy.words()} differs from the source's beat {beat.id}: they are of two histories."
            return
    for beat, following in zip(known, [*known[1:], None], strict=False):
        if beat.id not in present and _was_committed_before(beat, following, target):
            yield f"{beat.words()} was committed before the target, {target.words()}, and is missing."
    if rows and known and rows[-1].id > known[-1].id:
        yield f"{rows[-1].words()} is unknown to the source, whose newest one is {known[-1].words()}."


def _was_committed_before(beat: Beat, following: Beat | None, target: Bound) -> bool:
    """Whether that is certain."""
    if target.time is not None:
        if following is not None and following.written_at <= target.time:
            return True
        return beat.written_at + COMMITTED_WITHIN <= target.time
    if target.lsn is not None and following is not None and following.lsn <= target.lsn:
        return True
    return target.reached_at is not None and beat.written_at + COMMITTED_WITHIN <= target.reached_at
