"""A clock that was put back: a time that lies in the stretch that was lived twice means two places in the WAL.

PostgreSQL stops at the first commit after the time, in the order of the WAL. Where commits behind that place bear times
before it, there is a later place of the same time, and whoever asked for it may have meant that one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from tmi_ops.errors import OpsError
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.spool import WalSpool
from tmi_ops.recovery.point_in_time.target import time_words
from tmi_ops.recovery.point_in_time.waldump import TransactionEnd, transaction_ends

# A clock is put back by minutes or an hour; how much WAL that is nobody knows, and each segment takes a while to read.
SEGMENTS_LOOKED_AT = 8
# Transactions that end at the same time may be some way out of order without any clock being put back.
PUT_BACK = timedelta(seconds=1)


def clock_put_back(plan: RecoveryPlan, spool: WalSpool, programs: Programs, lsn: int, scratch: Path) -> tuple[str, ...]:
    """What a person must know of a time that was reached at `lsn`; empty: nothing behind it is of an earlier time."""
    time = plan.target.time
    if time is None:
        return ()
    found: list[TransactionEnd] = []
    with tempfile.TemporaryDirectory(prefix="overlap-", dir=scratch) as directory:
        for path in _segments_behind(plan, spool, lsn, Path(directory)):
            try:
                found += transaction_ends(programs, path)
            except OpsError:
                break  # what cannot be read here was not needed to reach the target
    return tuple(another_reading(found, lsn, time))


def another_reading(ends: Sequence[TransactionEnd], lsn: int, time: datetime) -> Iterator[str]:
    """A sentence where transactions that ended behind `lsn` bear times up to `time`."""
    newest = time
    again: list[TransactionEnd] = []
    for end in ends:
        if end.lsn < lsn:
            continue
        newest = max(newest, end.at)
        if end.at <= time and newest - end.at >= PUT_BACK:
            again.append(end)
    if again:
        last = again[-1]
        yield (
            f"{time_words(time)} is ambiguous: the server's clock was put back, and {len(again)} of the transactions "
            f"that ended after the place which was reached (LSN {format_lsn(lsn)}) bear times before it, the last one "
            f"{time_words(last.at)}. They are not in the copy. The later place of that time is behind LSN "
            f"{format_lsn(last.lsn)}: --to-lsn {format_lsn(last.lsn)}."
        )


def _segments_behind(plan: RecoveryPlan, spool: WalSpool, lsn: int, directory: Path) -> Iterator[Path]:
    """The segment that holds the place, and those behind it that are at hand."""
    behind = [file for file in plan.wal.files if file.segment.end > lsn][:SEGMENTS_LOOKED_AT]
    for number, file in enumerate(behind):
        content = spool.at_hand(file) if number else spool.content(file)
        if content is None:
            return
        path = directory / file.name
        path.write_bytes(content)
        yield path
        path.unlink()
