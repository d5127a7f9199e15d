"""Rows that violate what the models require: how many, with examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, MetaData, text

from tmi_ops.postgres.own_text import text_of
from tmi_ops.schema.catalog import LiveSchema
from tmi_ops.schema.column_comparison import ColumnComparison
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.engine import only_pg_catalog
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch, Structure

ConflictKind = Literal["value", "reference", "null", "duplicate"]

EXAMPLES = 3
_COUNTED_STATES = ("missing", "not valid")


@dataclass(frozen=True)
class Conflict:
    """Rows of `table` that violate `name` (a constraint, an index or, for nulls, a column).

    `examples` are primary keys, or for duplicates the values that occur more than once, as text.
    """

    table: str
    name: str
    kind: ConflictKind
    rows: int
    examples: tuple[str, ...]

    def describe(self) -> str:
        """`3 rows (such as id=17, id=19)`."""
        noun = "row" if self.rows == 1 else "rows"
        return f"{self.rows:,} {noun} (such as {', '.join(self.examples)})"

    def verb(self, plural: str) -> str:
        """The verb that follows `describe`, in the right number: `violate` or `violates`."""
        if self.rows != 1:
            return plural
        return "has" if plural == "have" else f"{plural}s"


@dataclass(frozen=True)
class _Question:
    table: str
    name: str
    kind: ConflictKind
    condition: str
    referenced: str | None = None

    @property
    def tables(self) -> set[str]:
        """The tables it reads."""
        return {self.table} | ({self.referenced} if self.referenced else set())


def read_conflicts(
    connection: Connection, live: LiveSchema, columns: ColumnComparison, structure: Structure, metadata: MetaData
) -> tuple[Conflict, ...]:
    """Count the rows that violate constraints that are missing or not validated. Each query reads its table once.

    No operators or functions of others run (`only_pg_catalog`).
    """
    with only_pg_catalog(connection):
        return _read_conflicts(connection, live, columns, structure, metadata)


def _read_conflicts(
    connection: Connection, live: LiveSchema, columns: ColumnComparison, structure: Structure, metadata: MetaData
) -> tuple[Conflict, ...]:
    readable = {table.name for table in live.tables.values() if table.readable}
    conflicts: list[Conflict] = []
    schema = live.schema

    def keys_of(table: str) -> tuple[str, ...]:
        keys = (column.name for column in metadata.tables[table].primary_key.columns)
        return tuple(key for key in keys if not columns.lacks(table, (key,)))

    for question in _questions(live, columns, structure):
        if question.tables <= readable:
            conflicts += _ask(connection, schema, question, keys_of(question.table))
    for match in structure.indexes:
        wanted = (
            match.unique and match.state in ("missing", "invalid") and not columns.lacks(match.table, match.columns)
        )
        if wanted and match.table in readable:
            conflicts += _duplicates(connection, schema, match.table, match.name, match.columns, keys_of(match.table))
    for key in structure.wrong_primary_keys:
        if key.live is None and key.table in readable and not columns.lacks(key.table, key.columns):
            conflicts += _duplicates(connection, schema, key.table, f"{key.table}_pkey", key.columns, key.columns)
    return tuple(conflicts)


def _questions(live: LiveSchema, columns: ColumnComparison, structure: Structure) -> Iterator[_Question]:
    for check in structure.checks:
        if check.state in _COUNTED_STATES and not columns.lacks(check.table, check.columns):
            yield _Question(check.table, _name(check), "value", _outside(check))
    for key in structure.foreign_keys:
        if key.state in _COUNTED_STATES and not columns.lacks(key.table, key.columns):
            yield _Question(key.table, _name(key), "reference", _dangling(key, live, columns), _read_with(key, live))
    for difference in columns.nullability:
        if difference.live_nullable:
            yield _Question(difference.table, difference.column, "null", f"{quote(difference.column)} IS NULL")


def _read_with(key: ForeignKeyMatch, live: LiveSchema) -> str | None:
    return key.referenced if key.referenced in live.tables else None


def _name(match: CheckMatch | ForeignKeyMatch) -> str:
    return match.live.name if match.live and match.state == "not valid" else match.name


def _outside(check: CheckMatch) -> str:
    values = ", ".join(f"'{value}'" for value in check.values)
    return f"{quote(check.column)} NOT IN ({values})"


def _dangling(key: ForeignKeyMatch, live: LiveSchema, columns: ColumnComparison) -> str:
    present = " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in key.columns)
    if key.referenced not in live.tables or columns.lacks(key.referenced, key.referenced_columns):
        return present
    pairs = zip(key.columns, key.referenced_columns, strict=True)
    joined = " AND ".join(f"r.{quote(theirs)} = t.{quote(ours)}" for ours, theirs in pairs)
    return f"{present} AND NOT EXISTS (SELECT FROM {_qualified(live.schema, key.referenced)} r WHERE {joined})"


def _qualified(schema: str, table: str) -> str:
    return f"{quote(schema)}.{quote(table)}"


def _ask(connection: Connection, schema: str, question: _Question, keys: tuple[str, ...]) -> Iterator[Conflict]:
    table = _qualified(schema, question.table)
    count = f"SELECT count(*) FROM {table} t WHERE {question.condition}"  # noqa: S608
    rows = connection.execute(text(count)).scalar_one()
    if not rows:
        return
    shown = ", ".join(text_of(f"t.{quote(key)}") for key in keys) or "t.ctid::text"
    sample = f"SELECT {shown} FROM {table} t WHERE {question.condition} ORDER BY {shown} LIMIT {EXAMPLES}"  # noqa: S608
    examples = tuple(_example(keys or ("ctid",), row) for row in connection.execute(text(sample)))
    yield Conflict(question.table, question.name, question.kind, rows, examples)


def _duplicates(
    connection: Connection, schema: str, table: str, name: str, columns: tuple[str, ...], keys: tuple[str, ...]
) -> Iterator[Conflict]:
    """Examples are the keys of two rows with the same values: the values themselves may be secret (tokens)."""
    listed = ", ".join(quote(column) for column in columns)
    present = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)
    key = " || '/' || ".join(text_of(quote(column)) for column in keys) or "ctid::text"
    groups = (
        f"SELECT count(*) AS n, min({key}) AS one, max({key}) AS other FROM {_qualified(schema, table)} "  # noqa: S608
        f"WHERE {present} GROUP BY {listed} HAVING count(*) > 1"
    )
    rows = connection.execute(text(f"SELECT coalesce(sum(n), 0)::bigint FROM ({groups}) g")).scalar_one()  # noqa: S608
    if not rows:
        return
    sample = connection.execute(text(f"SELECT one, other FROM ({groups}) g ORDER BY 1, 2 LIMIT {EXAMPLES}"))  # noqa: S608
    label = "/".join(keys) or "ctid"
    examples = tuple(f"{label}={one}" if one == other else f"{label}={one} and {other}" for one, other in sample)
    yield Conflict(table, name, "duplicate", rows, examples)


def _example(names: tuple[str, ...], values: Iterable[object]) -> str:
    return " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
