"""What the living server says that a copy of it can be held against."""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.drill.chain import Beat
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
    """A database's schema in one snapshot, and what is to be said of it."""

    state: SchemaState
    validation: Validation


@dataclass(frozen=True)
class SourceReading:
    """Read after the recovery, so that everything the copy holds is known. `beats`: by number."""

    schema: SchemaReading
    beats: tuple[Beat, ...]


def read_schema(postgres: PostgresSettings) -> SchemaReading:
    """Raises:
    DatabaseError: the database is not there, or refused a query.
    """
    with snapshot(postgres) as connection:
        state = read_state(connection)
        return SchemaReading(state, judge(connection, state, postgres))


def read_source(postgres: PostgresSettings, system_identifier: str, report: Report) -> SourceReading | None:
    """None where the living server cannot be asked, or is of another cluster: a drill must be possible then too."""
    try:
        with connect(postgres) as connection:
            found = read_server(connection).system_identifier
        if found != system_identifier:
            report.note(f"{postgres.describe()} is not the cluster that was backed up; the copy is judged alone.")
            return None
        return SourceReading(read_schema(postgres), tuple(read_chain(postgres) or ()))
    except OpsError as error:
        report.note(f"The living server could not be asked, so the copy is judged alone: {error.message}")
        return None
