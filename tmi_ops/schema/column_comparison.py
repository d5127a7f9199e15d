"""Compares the columns of the live tables with the models, using Alembic; the result is frozen facts.

Alembic compares tables and columns. `structure.py` compares indexes and constraints by structure, because Alembic
matches indexes by name and ignores whether an index or a constraint is valid.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, MetaData, String, Text
from sqlalchemy.exc import SAWarning
from sqlalchemy.types import TypeEngine

from tmi_ops.schema.dialect import DIALECT

Width = Literal["narrower", "wider", "other"]

# The models have no comments, and constraints are compared elsewhere.
_COMPARATORS = [
    "alembic.autogenerate.*",
    "~alembic.autogenerate.comments",
]


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
    """The differences that Alembic found. Pairs are (table, column)."""

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
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
            "autogenerate_plugins": _COMPARATORS,
        },
    )
    # Alembic has a callable for this, but also passes identity columns to it, and fails on them.
    context.impl.compare_server_default = _default_differs  # type: ignore[method-assign]
    with warnings.catch_warnings():
        # A column with an extension's type is an extra column; its type does not matter.
        warnings.simplefilter("ignore", SAWarning)
        return _collect(compare_metadata(context, metadata))


def _collect(diffs: list[Any]) -> ColumnComparison:
    missing_tables: list[str] = []
    missing_columns: list[tuple[str, str]] = []
    extra_columns: list[ExtraColumn] = []
    types: list[TypeDifference] = []
    nullability: list[NullabilityDifference] = []
    defaults: list[DefaultDifference] = []
    for diff in (inner for outer in diffs for inner in (outer if isinstance(outer, list) else [outer])):
        match diff:
            case ("add_table", table):
                missing_tables.append(table.name)
            case ("add_column", _, table, column):
                missing_columns.append((table, column.name))
            case ("remove_column", _, table, column):
                extra_columns.append(ExtraColumn(table, column.name, _is_required(column)))
            case ("modify_type", _, table, column, _, live, model):
                types.append(TypeDifference(table, column, _type_sql(live), _type_sql(model), _width(live, model)))
            case ("modify_nullable", _, table, column, _, live_nullable, _):
                nullability.append(NullabilityDifference(table, column, live_nullable))
            case ("modify_default", _, table, column, _, live, model):
                defaults.append(DefaultDifference(table, column, _default_sql(live), _default_sql(model)))
    return ColumnComparison(
        tuple(missing_tables),
        tuple(missing_columns),
        tuple(extra_columns),
        tuple(types),
        tuple(nullability),
        tuple(defaults),
    )


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


def _default_differs(_live_column: object, column: Column[Any], _model: object, live: str | None) -> bool:
    """Compare the texts. Alembic would evaluate the live default on the server, and so advance a sequence."""
    wanted = column_default_sql(column)
    if live is None or wanted is None:
        return live != wanted
    return plain_default(live) != plain_default(wanted)


def _is_required(live: Column[Any]) -> bool:
    # For a serial column, Alembic removes the default and sets SQLAlchemy's autoincrement.
    filled = live.server_default is not None or live.identity is not None or live.autoincrement is True
    return not live.nullable and not filled


def _default_sql(default: Any) -> str | None:
    if default is None or default is False:
        return None
    argument = getattr(default, "arg", None)
    if argument is None:
        return "identity"
    return f"'{argument}'" if isinstance(argument, str) else str(argument)


def _type_sql(column_type: TypeEngine[Any]) -> str:
    return column_type.compile(dialect=DIALECT).lower()


def _width(live: TypeEngine[Any], model: TypeEngine[Any]) -> Width:
    if not (isinstance(live, String) and isinstance(model, String)):
        return "other"
    live_length, model_length = (
        float("inf") if isinstance(one, Text) or one.length is None else one.length for one in (live, model)
    )
    if live_length == model_length:
        return "other"
    return "narrower" if live_length < model_length else "wider"
