"""Reads the live server, to compare a copy with it."""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.drill.chain import HeartbeatRow
from tmi_ops.drill.heartbeat import read_chain
from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.server import read_server
from tmi_ops.progress import Report
from tmi_ops.schema.engine import snapshot
from tmi_ops.schema.state import SchemaState, read_state
from tmi_ops.schema.validation import Validation, judge
from tmi_ops.settings import PostgresSettings


@dataclass(frozen=True)
class SchemaReading:
    """A database's schema in one snapshot, and its validation."""

    state: SchemaState
    validation: Validation


@dataclass(frozen=True)
class SourceReading:
    """Read after the recovery, so that it is at least as new as the copy. `beats`: the heartbeats, by number."""

    schema: SchemaReading
    beats: tuple[HeartbeatRow, ...]


def read_schema(postgres: PostgresSettings) -> SchemaReading:
    """Raises:
    DatabaseError: the database does not exist, or refused a query.
    """
    with snapshot(postgres) as connection:
        state = read_state(connection)
        return SchemaReading(state, judge(connection, state, postgres))


def read_source(postgres: PostgresSettings, system_identifier: str, report: Report) -> SourceReading | None:
    """None when the live server cannot be read or belongs to another cluster: drills must work then, too."""
    try:
        with connect(postgres) as connection:
            found = read_server(connection).system_identifier
        if found != system_identifier:
            report.note(f"{postgres.describe()} is not the backed-up cluster, so the copy is checked without it.")
            return None
        return SourceReading(read_schema(postgres), tuple(read_chain(postgres) or ()))
    except OpsError as error:
        report.note(f"The live server could not be read, so the copy is checked without it: {error.message}")
        return None
