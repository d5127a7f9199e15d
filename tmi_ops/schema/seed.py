"""The rows that TMI needs before its first request: inserted if absent, never changed if present."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from sqlalchemy import Column, Connection, DateTime, MetaData, Table, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from tmi_ops.schema.catalog import LiveSchema
from tmi_ops.schema.column_comparison import ColumnComparison
from tmi_ops.schema.dialect import DIALECT
from tmi_ops.schema.engine import only_pg_catalog

# The columns that identify a row to a person, besides its primary key.
NATURAL_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "groups": ("provider", "group_name"),
        "webhook_url_deny_list": ("pattern",),
        "users": ("provider", "email"),
    }
)
# Rows without a key get one derived from their natural key, so that two seeders agree.
_KEY_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/ericfitz/tmi")


@dataclass(frozen=True)
class SeedRow:
    """A row to insert; `values` are pairs of column and value."""

    table: str
    values: tuple[tuple[str, Any], ...]

    def insert_sql(self, metadata: MetaData) -> str:
        """The statement that inserts the row unless it exists by then; the server sets its timestamps."""
        table = metadata.tables[self.table]
        values: dict[str, Any] = dict(self.values)
        for column in table.columns:
            if column.name not in values and _needs_timestamp(column):
                values[column.name] = text("CURRENT_TIMESTAMP")
        statement = insert(table).values(values).on_conflict_do_nothing()
        return str(statement.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


@cache
def seed_rows() -> tuple[SeedRow, ...]:
    """Every row of `seed.json`, each with its key."""
    document = json.loads(files("tmi_ops.schema").joinpath("seed.json").read_text("utf-8"))
    return tuple(
        SeedRow(table, tuple(_with_key(table, row).items())) for table in NATURAL_KEYS for row in document[table]
    )


def absent_seed_rows(
    connection: Connection, live: LiveSchema, columns: ColumnComparison, metadata: MetaData
) -> tuple[SeedRow, ...]:
    """The rows that the database lacks: it has neither their primary key nor their natural key."""
    absent: list[SeedRow] = []
    for table, natural_key in NATURAL_KEYS.items():
        rows = [row for row in seed_rows() if row.table == table]
        keys = tuple(column.name for column in metadata.tables[table].primary_key.columns)
        if table in live.tables and live.tables[table].readable and not columns.lacks(table, (*keys, *natural_key)):
            present = _present(connection, live.schema, metadata.tables[table], rows, (keys, natural_key))
            rows = [row for row in rows if not _identities(row, (keys, natural_key)) & present]
        absent += rows
    return tuple(absent)


_Identity = tuple[tuple[str, ...], tuple[Any, ...]]


def _present(
    connection: Connection, schema: str, table: Table, rows: Iterable[SeedRow], keys: tuple[tuple[str, ...], ...]
) -> set[_Identity]:
    found: set[_Identity] = set()
    names = tuple(dict.fromkeys(name for key in keys for name in key))
    wanted = [
        tuple_(*(table.c[name] for name in key)).in_([tuple(dict(row.values)[name] for name in key) for row in rows])
        for key in keys
    ]
    query = select(*(table.c[name] for name in names)).where(or_(*wanted))
    with only_pg_catalog(connection):
        records = connection.execute(query, execution_options={"schema_translate_map": {None: schema}}).all()
    for record in records:
        values = dict(zip(names, record, strict=True))
        found |= {(key, tuple(values[name] for name in key)) for key in keys}
    return found


def _identities(row: SeedRow, keys: tuple[tuple[str, ...], ...]) -> set[_Identity]:
    values = dict(row.values)
    return {(key, tuple(values[name] for name in key)) for key in keys}


def _with_key(table: str, row: dict[str, Any]) -> dict[str, Any]:
    if table != "webhook_url_deny_list":
        return row
    return {"id": str(uuid.uuid5(_KEY_NAMESPACE, f"{table}/{row['pattern']}")), **row}


def _needs_timestamp(column: Column[Any]) -> bool:
    return isinstance(column.type, DateTime) and not column.nullable and column.server_default is None
