"""The state of the live database that plans and validation use, read in one snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, text

from tmi_ops.schema.catalog import LiveSchema, read_catalog
from tmi_ops.schema.column_comparison import ColumnComparison, compare_columns
from tmi_ops.schema.conflicts import Conflict, ConflictKind, read_conflicts
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.models import Base
from tmi_ops.schema.seed import SeedRow, absent_seed_rows, seed_rows
from tmi_ops.schema.structure import Structure, match_structure


@dataclass(frozen=True)
class SchemaState:
    """The live schema compared with the models. `filled_tables`: tables that lack a column and have rows."""

    live: LiveSchema
    columns: ColumnComparison
    structure: Structure
    conflicts: tuple[Conflict, ...] = ()
    filled_tables: frozenset[str] = frozenset()
    absent_seed: tuple[SeedRow, ...] = ()

    def conflict(self, table: str, name: str, kind: ConflictKind | None = None) -> Conflict | None:
        for one in self.conflicts:
            if (one.table, one.name) == (table, name) and kind in (None, one.kind):
                return one
        return None


def read_state(connection: Connection, metadata: MetaData = Base.metadata) -> SchemaState:
    """Read and compare; nothing is written."""
    live = read_catalog(connection)
    columns = compare_columns(connection, metadata)
    structure = match_structure(live, metadata)
    lacking = sorted({table for table, _ in columns.missing_columns})
    return SchemaState(
        live=live,
        columns=columns,
        structure=structure,
        conflicts=read_conflicts(connection, live, columns, structure, metadata),
        filled_tables=frozenset(table for table in lacking if _has_rows(connection, table)),
        absent_seed=absent_seed_rows(connection, live, columns, metadata),
    )


def state_of_a_missing_database(database: str, metadata: MetaData = Base.metadata) -> SchemaState:
    """The state of a database that was just created."""
    return SchemaState(
        live=LiveSchema(server_version="", database=database, database_size=0, schema="public"),
        columns=ColumnComparison(missing_tables=tuple(table.name for table in metadata.sorted_tables)),
        structure=Structure(),
        absent_seed=seed_rows(),
    )


def _has_rows(connection: Connection, table: str) -> bool:
    return bool(connection.execute(text(f"SELECT EXISTS (SELECT FROM {quote(table)})")).scalar_one())  # noqa: S608
