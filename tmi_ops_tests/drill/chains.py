"""Heartbeat chains without a database: one heartbeat a minute, from noon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.drill.chain import HeartbeatRow, next_heartbeat

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FIRST_LSN = 0x3000000
LSN_STEP = 0x1000


def minute(count: float) -> datetime:
    """This many minutes after noon."""
    return NOON + timedelta(minutes=count)


def lsn(count: float) -> int:
    """The LSN this many minutes after noon."""
    return FIRST_LSN + int(count * LSN_STEP)


def chain(length: int) -> list[HeartbeatRow]:
    """Heartbeat 1 at noon, heartbeat 2 a minute later, and so on."""
    beats: list[HeartbeatRow] = []
    for number in range(length):
        beats.append(next_heartbeat(beats[-1] if beats else None, minute(number), lsn(number)))
    return beats
