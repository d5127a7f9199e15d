"""Compares the columns of the live tables, as SQLAlchemy reflects them, with the models; the result is frozen facts.

`structure.py` compares indexes and constraints.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Column, Connection, MetaData, String, Table, Text, inspect, text
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import SAWarning
from sqlalchemy.types import NullType, TypeEngine

from tmi_ops.schema.dialect import DIALECT

Width = Literal["narrower", "wider", "other"]

# Columns that a sequence of their own numbers, as `serial` makes them; the sequence is a finding of its own.
_NUMBERED = """
    SELECT t.relname::text, a.attname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
        AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
    JOIN pg_class t ON t.oid = d.refobjid
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE n.nspname = current_schema() AND c.relkind = 'S'
"""


@dataclass(frozen=True)
class TypeDifference:
    """`width`: the live type compared with the model's."""

    table: str
    column: str
    live: str
    model: str
    width: Width


@dataclass(frozen=True)
class NullabilityDifference:
    table: str
    column: str
    live_nullable: bool


@dataclass(frozen=True)
class DefaultDifference:
    """Defaults as SQL; None if there is none."""

    table: str
    column: str
    live: str | None
    model: str | None

    @property
    def live_is_sequence(self) -> bool:
        return self.live is not None and (self.live.startswith("nextval(") or self.live == "identity")


@dataclass(frozen=True)
class ExtraColumn:
    """A column that no model has. `required`: NOT NULL without a default, so rows written without it are refused."""

    table: str
    column: str
    required: bool


@dataclass(frozen=True)
class ColumnComparison:
    """The differences that were found. Pairs are (table, column)."""

    missing_tables: tuple[str, ...] = ()
    missing_columns: tuple[tuple[str, str], ...] = ()
    extra_columns: tuple[ExtraColumn, ...] = ()
    types: tuple[TypeDifference, ...] = ()
    nullability: tuple[NullabilityDifference, ...] = ()
    defaults: tuple[DefaultDifference, ...] = ()

    def lacks(self, table: str, columns: Collection[str]) -> bool:
        """Whether one of the columns, or the table, is missing."""
        return table in self.missing_tables or any((table, column) in self.missing_columns for column in columns)


def compare_columns(connection: Connection, metadata: MetaData) -> ColumnComparison:
    """Compare the live tables that the models have; other tables are ignored."""
    live = _live_columns(connection, metadata)
    numbered = {(table, column) for table, column in connection.execute(text(_NUMBERED))}
    tables = [table for table in metadata.sorted_tables if table.name in live]
    pairs = [(table.name, live[table.name][column.name], column) for table, column in _columns(tables, live)]
    return ColumnComparison(
        missing_tables=tuple(table.name for table in metadata.sorted_tables if table.name not in live),
        missing_columns=tuple(
            (table.name, column.name) for table in tables for column in table.c if column.name not in live[table.name]
        ),
        extra_columns=tuple(
            ExtraColumn(table.name, name, _is_required(column))
            for table in tables
            for name, column in live[table.name].items()
            if name not in table.c
        ),
        types=tuple(
            TypeDifference(table, column.name, _type_sql(found["type"]), _type_sql(column.type), _width(found, column))
            for table, found, column in pairs
            if _type_sql(found["type"]) != _type_sql(column.type)
        ),
        nullability=tuple(
            NullabilityDifference(table, column.name, found["nullable"])
            for table, found, column in pairs
            if found["nullable"] != column.nullable
        ),
        defaults=tuple(
            DefaultDifference(table, column.name, _live_default(found), column_default_sql(column))
            for table, found, column in pairs
            if (table, column.name) not in numbered
            and _default_differs(_live_default(found), column_default_sql(column))
        ),
    )


def _live_columns(connection: Connection, metadata: MetaData) -> dict[str, dict[str, ReflectedColumn]]:
    with warnings.catch_warnings():
        # Of a type that it does not know; such a column differs from any model's.
        warnings.simplefilter("ignore", SAWarning)
        found = inspect(connection).get_multi_columns(filter_names=[table.name for table in metadata.sorted_tables])
    return {name: {column["name"]: column for column in columns} for (_, name), columns in found.items()}


def _columns(
    tables: Collection[Table], live: Mapping[str, Mapping[str, ReflectedColumn]]
) -> Iterator[tuple[Table, Column[Any]]]:
    """The models' columns that are there."""
    for table in tables:
        for column in table.c:
            if column.name in live[table.name]:
                yield table, column


def column_default_sql(column: Column[Any]) -> str | None:
    """The default of a model's column as SQL."""
    default: str | None = DIALECT.ddl_compiler(DIALECT, None).get_column_default_string(column)  # type: ignore[arg-type]
    return default


def plain_default(default: str) -> str:
    """A default without the casts and parentheses PostgreSQL adds: "'STRIDE'::character varying" -> "'STRIDE'"."""
    bare = re.sub(r"::[a-z ]+(\(\d+(,\s*\d+)?\))?(\[\])?", "", default.strip())
    while bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1].strip()
    if re.fullmatch(r"'-?\d+(\.\d+)?'", bare):
        bare = bare.strip("'")
    return "CURRENT_TIMESTAMP" if bare.lower() in ("now()", "current_timestamp", "transaction_timestamp()") else bare


def _default_differs(live: str | None, model: str | None) -> bool:
    """Compare the texts: to evaluate the live default on the server would advance a sequence."""
    if live is None or model is None:
        return live != model
    return plain_default(live) != plain_default(model)


def _is_required(live: ReflectedColumn) -> bool:
    return not live["nullable"] and _live_default(live) is None


def _live_default(live: ReflectedColumn) -> str | None:
    if live.get("identity"):
        return "identity"
    if computed := live.get("computed"):
        return f"GENERATED ALWAYS AS ({computed['sqltext']})"
    return live["default"]


def _type_sql(column_type: TypeEngine[Any]) -> str:
    if isinstance(column_type, NullType):
        return "a type that SQLAlchemy does not know"
    return column_type.compile(dialect=DIALECT).lower()


def _width(found: ReflectedColumn, column: Column[Any]) -> Width:
    live, model = found["type"], column.type
    if not (isinstance(live, String) and isinstance(model, String)):
        return "other"
    live_length, model_length = (
        float("inf") if isinstance(one, Text) or one.length is None else one.length for one in (live, model)
    )
    if live_length == model_length:
        return "other"
    return "narrower" if live_length < model_length else "wider"
