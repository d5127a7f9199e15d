"""Detects a server clock that was put back: a time it showed twice means two places in the WAL.

PostgreSQL stops at the first commit after the target time, in WAL order. If later commits have earlier times, the same
time occurs again later in the WAL, and the user may have meant that place.
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
from tmi_ops.recovery.point_in_time.target import format_time
from tmi_ops.recovery.point_in_time.waldump import TransactionEnd, transaction_ends

# A clock is put back by minutes or an hour. The amount of WAL is unknown, and reading each segment takes time.
SEGMENTS_LOOKED_AT = 8
# Transactions that end at the same time may be slightly out of order even though no clock was put back.
PUT_BACK = timedelta(seconds=1)


def clock_put_back(plan: RecoveryPlan, spool: WalSpool, programs: Programs, lsn: int, scratch: Path) -> tuple[str, ...]:
    """A note if commits after `lsn`, where the target time was reached, have earlier times; else empty."""
    time = plan.target.time
    if time is None:
        return ()
    found: list[TransactionEnd] = []
    with tempfile.TemporaryDirectory(prefix="overlap-", dir=scratch) as directory:
        for path in _segments_behind(plan, spool, lsn, Path(directory)):
            try:
                found += transaction_ends(programs, path)
            except OpsError:
                break  # this WAL was not needed to reach the target
    return tuple(another_reading(found, lsn, time))


def another_reading(ends: Sequence[TransactionEnd], lsn: int, time: datetime) -> Iterator[str]:
    """A note if transactions that ended after `lsn` have times up to `time`."""
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
            f"{format_time(time)} is ambiguous: the server's clock was put back. {len(again)} transactions that ended "
            f"after the restored position (LSN {format_lsn(lsn)}) have earlier times, the last one "
            f"{format_time(last.at)}. They are not in the copy. To include them, use "
            f"--to-lsn {format_lsn(last.lsn)}."
        )


def _segments_behind(plan: RecoveryPlan, spool: WalSpool, lsn: int, directory: Path) -> Iterator[Path]:
    """The segment that contains `lsn`, and those after it that are already fetched."""
    behind = [file for file in plan.wal.files if file.segment.end > lsn][:SEGMENTS_LOOKED_AT]
    for number, file in enumerate(behind):
        content = spool.at_hand(file) if number else spool.content(file)
        if content is None:
            return
        path = directory / file.name
        path.write_bytes(content)
        yield path
        path.unlink()
