"""Reads the running server's clock, WAL position and slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.errors import DatabaseError
from tmi_ops.objectives.facts import ServerReading
from tmi_ops.postgres.connections import connect
from tmi_ops.recovery.server_wal_end import server_wal_end
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.settings import Settings
from tmi_ops.wal.slot import read_our_server

_CLOCK = "SELECT clock_timestamp(), current_setting('server_version'), system_identifier::text FROM pg_control_system()"
# The segment size if archive_command (or a library) archives WAL and its last attempt succeeded.
_ARCHIVER = """
SELECT pg_size_bytes(current_setting('wal_segment_size')) FROM pg_stat_archiver
WHERE current_setting('archive_mode') <> 'off' AND last_archived_time IS NOT NULL
  AND (last_failed_time IS NULL OR last_failed_time < last_archived_time)
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
        archives_segments_of=archiver[0] if archiver else None,
    )
    return reading, witness


def _difference(clock: datetime, before: datetime, after: datetime) -> timedelta:
    """The minimum by which a clock that was read between `before` and `after` is ahead of ours. Negative: behind."""
    if before <= clock <= after:
        return timedelta(0)
    return clock - (after if clock > after else before)
