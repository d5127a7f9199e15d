"""Validates the live schema: whether it is what TMI needs."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Connection

from tmi_ops.schema.engine import snapshot
from tmi_ops.schema.findings import Deviation, find_all
from tmi_ops.schema.row_counts import count_rows
from tmi_ops.schema.rules import Level
from tmi_ops.schema.state import SchemaState, read_state
from tmi_ops.settings import PostgresSettings


class Validation(BaseModel):
    """The result of validating a live schema.

    Attributes:
        database_size: bytes.
        tables: rows by table, of the tables the role may read. `estimated`: tables too large to count.
        findings: the worst first.
    """

    model_config = ConfigDict(frozen=True)

    address: str
    database: str
    database_size: int
    server_version: str
    tables: Mapping[str, int]
    estimated: tuple[str, ...]
    findings: tuple[Deviation, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """Whether no finding is an ERROR."""
        return not self.at("ERROR")

    def at(self, level: Level) -> tuple[Deviation, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)


def validate_schema(postgres: PostgresSettings) -> Validation:
    """Read the live schema and judge it. Nothing is written, and no lock is held that blocks anybody.

    Raises:
        DatabaseError: the database could not be reached, does not exist, or refused a query.
    """
    with snapshot(postgres) as connection:
        return judge(connection, read_state(connection), postgres)


def schema_findings(postgres: PostgresSettings) -> tuple[Deviation, ...]:
    """The findings on the live schema, the worst first, without counting rows: fast enough to run often.

    Raises:
        DatabaseError: as `validate_schema`.
    """
    with snapshot(postgres) as connection:
        return find_all(read_state(connection))


def judge(connection: Connection, state: SchemaState, postgres: PostgresSettings) -> Validation:
    """Validate a state that was read in the same snapshot."""
    counts = count_rows(connection, state.live.tables.values())
    return Validation(
        address=postgres.describe(),
        database=state.live.database,
        database_size=state.live.database_size,
        server_version=state.live.server_version,
        tables=counts.rows,
        estimated=counts.estimated,
        findings=find_all(state),
    )
