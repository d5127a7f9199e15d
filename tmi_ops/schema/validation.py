"""Validates the live schema: whether it is what TMI needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Connection, text

from tmi_ops.schema.catalog import LiveTable
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.engine import snapshot
from tmi_ops.schema.findings import Deviation, find_all
from tmi_ops.schema.rules import Level
from tmi_ops.schema.state import SchemaState, read_state
from tmi_ops.settings import PostgresSettings

# Counting scans the table: above this heap size (some seconds of reading), PostgreSQL's estimate is used.
EXACT_UP_TO_BYTES = 2 * 1024**3
_TABLES_PER_QUERY = 50


@dataclass(frozen=True)
class RowCounts:
    """Rows by table. `estimated` names the tables too large to count. Unreadable tables are left out."""

    rows: Mapping[str, int]
    estimated: tuple[str, ...]


def count_rows(
    connection: Connection, tables: Iterable[LiveTable], *, exact_up_to: int = EXACT_UP_TO_BYTES
) -> RowCounts:
    """Count exactly if a table's heap has at most `exact_up_to` bytes, or PostgreSQL has no estimate."""
    readable = sorted((table for table in tables if table.readable), key=lambda table: table.name)
    estimates = {
        table.name: table.estimated_rows
        for table in readable
        if table.size > exact_up_to and table.estimated_rows is not None
    }
    exact = [table.name for table in readable if table.name not in estimates]
    counts: dict[str, int] = dict(estimates)
    for start in range(0, len(exact), _TABLES_PER_QUERY):
        names = exact[start : start + _TABLES_PER_QUERY]
        # By position, not by name: a table's name may hold any character.
        query = " UNION ALL ".join(
            f"SELECT {position}, count(*) FROM {quote(name)}"  # noqa: S608
            for position, name in enumerate(names)
        )
        counts |= {names[position]: count for position, count in connection.execute(text(query.replace(":", "\\:")))}
    return RowCounts(dict(sorted(counts.items())), tuple(estimates))


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
