"""Reads the running server's clock, WAL position and slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.errors import DatabaseError
from tmi_ops.objectives.facts import ArchiverReading, ServerReading
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import SEGMENT_NAME, parse_segment_name
from tmi_ops.recovery.server_wal_end import server_wal_end
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.settings import Settings
from tmi_ops.wal.slot import read_our_server

_CLOCK = "SELECT clock_timestamp(), current_setting('server_version'), system_identifier::text FROM pg_control_system()"
# Of a server that archives WAL itself, by archive_command or a library: the segment size, and what it archived last, if
# its last attempt succeeded; its statistics are empty after a crash.
_ARCHIVER = """
SELECT pg_size_bytes(current_setting('wal_segment_size')),
  CASE WHEN last_failed_time IS NULL OR last_failed_time < last_archived_time THEN last_archived_wal END,
  last_archived_time IS NULL AND last_failed_time IS NULL
FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off'
"""


def ask_about_wal(settings: Settings) -> tuple[ServerReading, KnownWalEnd | None]:
    """Query the server. The known WAL end is None for a standby.

    Raises:
        DatabaseError: the server could not be reached, or refused.
    """
    postgres = settings.postgres
    with connect(postgres) as connection:
        before = datetime.now(UTC)
        row = connection.execute(_CLOCK).fetchone()
        after = datetime.now(UTC)
        if row is None:
            raise DatabaseError(f"{postgres.describe()} did not return its system identifier.")
        archiver = connection.execute(_ARCHIVER).fetchone()
        witness = server_wal_end(connection)
    clock, version, system_identifier = row
    facts = read_our_server(settings)
    reading = ServerReading(
        at=witness.at if witness else clock.astimezone(UTC),
        clock_ahead=_difference(clock, before, after),
        version=version,
        system_identifier=system_identifier,
        timeline=witness.timeline if witness else None,
        lsn=witness.lsn if witness else facts.lsn,
        in_recovery=facts.in_recovery,
        slot=facts.slot,
        keep_limit=facts.keep_limit,
        archiver=None if archiver is None else _archiver(*archiver),
    )
    return reading, witness


def _archiver(segment_size: int, last: str | None, is_unknown: bool) -> ArchiverReading:
    """`last`: a segment, or the label of a base backup, which begins with one; a history file has no end."""
    name = (last or "")[:24]
    end = parse_segment_name(name, segment_size).end if SEGMENT_NAME.fullmatch(name) else None
    return ArchiverReading(segment_size, end, is_unknown)


def _difference(clock: datetime, before: datetime, after: datetime) -> timedelta:
    """The minimum by which a clock that was read between `before` and `after` is ahead of ours. Negative: behind."""
    if before <= clock <= after:
        return timedelta(0)
    return clock - (after if clock > after else before)
