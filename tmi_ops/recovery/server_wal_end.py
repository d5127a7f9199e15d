"""Asks the live server for its current WAL position and time."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import psycopg

from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.settings import PostgresSettings

_PLACE = """
SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_current_wal_flush_lsn()::text,
       substring(pg_walfile_name(pg_current_wal_flush_lsn()) FOR 8), clock_timestamp()
"""


def server_wal_end(connection: psycopg.Connection[Any]) -> KnownWalEnd | None:
    """The current end of the server's WAL; None on a standby, which does not know its primary's."""
    if _first(connection, "SELECT pg_is_in_recovery()"):
        return None
    row = connection.execute(_PLACE).fetchone()
    if row is None:  # a SELECT without FROM has its row
        raise AssertionError
    system_identifier, lsn, timeline, at = row
    return KnownWalEnd("server", system_identifier, parse_lsn(lsn), at.astimezone(UTC), int(timeline, 16))


def read_server_wal_end(postgres: PostgresSettings, report: Report) -> KnownWalEnd | None:
    """None if the live server cannot be reached: recovery must work then, too."""
    try:
        with connect(postgres) as connection:
            return server_wal_end(connection)
    except OpsError as error:
        report.note(f"The live server could not be read: {error.message}")
        return None


def _first(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
