"""Renders each step of a plan as SQL, with what it locks and for how long.

Lock levels: https://www.postgresql.org/docs/current/explicit-locking.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from sqlalchemy import Column, Constraint, Index, Table, UniqueConstraint
from sqlalchemy import schema as ddl

from tmi_ops.schema.column_comparison import column_default_sql
from tmi_ops.schema.dialect import DIALECT, quote
from tmi_ops.schema.models import Base
from tmi_ops.schema.operations import (
    AddColumn,
    AddConstraint,
    AddPrimaryKey,
    BuildIndex,
    CreateDatabase,
    CreateTable,
    InsertSeed,
    MigrationPlan,
    Operation,
    RequireValue,
    SetDefault,
    ValidateConstraint,
)

_INSTANT = "for milliseconds (only the catalog changes)"


@dataclass(frozen=True)
class Batch:
    """Statements that commit together.

    Attributes:
        statements: each without its semicolon.
        alone: the one statement cannot run inside a transaction.
        harmless: while it waits for its lock, it blocks no reads or writes, so it may wait long.
        builds_index: the index that a failure would leave invalid.
    """

    statements: tuple[str, ...]
    alone: bool = False
    harmless: bool = False
    builds_index: str | None = None


@dataclass(frozen=True)
class Step:
    """A step, as text for people and as statements."""

    summary: str
    locks: str
    batches: tuple[Batch, ...]

    @property
    def sql(self) -> tuple[str, ...]:
        return tuple(statement for batch in self.batches for statement in batch.statements)


def script(plan: MigrationPlan) -> str:
    """The plan as an SQL script for psql, with each step's locks as comments."""
    parts: list[str] = []
    for number, operation in enumerate(plan.operations, 1):
        step = render(operation)
        parts += [f"-- {number}/{len(plan.operations)} {step.summary}", f"-- locks: {step.locks}"]
        for batch in step.batches:
            together = len(batch.statements) > 1
            lines = [f"{statement};" for statement in batch.statements]
            parts += ["BEGIN;", *lines, "COMMIT;"] if together else lines
        if isinstance(operation, CreateDatabase):
            parts.append(f"\\connect {quote(operation.database)}")
        parts.append("")
    return "\n".join(parts)


@singledispatch
def render(operation: Operation) -> Step:
    """The SQL and locks of an operation.

    Raises:
        TypeError: the operation is unknown.
    """
    raise TypeError(f"no rendering for {operation!r}")


@render.register
def _(operation: CreateDatabase) -> Step:
    statement = f"CREATE DATABASE {quote(operation.database)} ENCODING 'UTF8' TEMPLATE template0"
    return Step(
        f"create database {operation.database}",
        "none",
        (Batch((statement,), alone=True, harmless=True),),
    )


@render.register
def _(operation: CreateTable) -> Step:
    table = _table(operation.table)
    indexes = [_one_line(ddl.CreateIndex(_index(table, one.index))) for one in operation.indexes]
    locks = "the new table only"
    if operation.locks:
        locks = f"SHARE ROW EXCLUSIVE on {', '.join(operation.locks)}: writes wait {_INSTANT}"
    count = f" with {len(indexes)} index{'es' if len(indexes) != 1 else ''}" if indexes else ""
    return Step(
        f"create table {operation.table}{count}",
        locks,
        (Batch((_lines(ddl.CreateTable(table)), *indexes)),),
    )


@render.register
def _(operation: AddColumn) -> Step:
    column = _table(operation.table).columns[operation.column]
    default = column_default_sql(column)
    clauses = [
        _type(column),
        *([f"DEFAULT {default}"] if default else []),
        *(["NOT NULL"] if operation.required else []),
    ]
    statement = f"ALTER TABLE {quote(operation.table)} ADD COLUMN {quote(operation.column)} {' '.join(clauses)}"
    return Step(
        f"add column {operation.table}.{operation.column}",
        f"ACCESS EXCLUSIVE on {operation.table}: reads and writes wait {_INSTANT}; no row is rewritten",
        (Batch((statement,)),),
    )


@render.register
def _(operation: SetDefault) -> Step:
    column = _table(operation.table).columns[operation.column]
    statement = (
        f"ALTER TABLE {quote(operation.table)} ALTER COLUMN {quote(operation.column)} "
        f"SET DEFAULT {column_default_sql(column)}"
    )
    return Step(
        f"set the default of {operation.table}.{operation.column}",
        f"ACCESS EXCLUSIVE on {operation.table}: reads and writes wait {_INSTANT}; existing rows keep their values",
        (Batch((statement,)),),
    )


@render.register
def _(operation: RequireValue) -> Step:
    alter = f"ALTER TABLE {quote(operation.table)}"
    check = quote(f"tmi_ops_not_null_{operation.column}")
    column = quote(operation.column)
    return Step(
        f"make {operation.table}.{operation.column} NOT NULL",
        f"ACCESS EXCLUSIVE on {operation.table}, at the start and the end: reads and writes wait {_INSTANT}; in "
        "between, one scan of the table with SHARE UPDATE EXCLUSIVE: reads and writes go on",
        (
            # A CHECK left by a crash is replaced, so that the step can be repeated.
            Batch(
                (
                    f"{alter} DROP CONSTRAINT IF EXISTS {check}, "
                    f"ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID",
                )
            ),
            Batch((f"{alter} VALIDATE CONSTRAINT {check}",), harmless=True),
            Batch((f"{alter} ALTER COLUMN {column} SET NOT NULL", f"{alter} DROP CONSTRAINT {check}")),
        ),
    )


@render.register
def _(operation: AddPrimaryKey) -> Step:
    name = f"{operation.table}_pkey"
    columns = ", ".join(quote(column) for column in operation.columns)
    table = quote(operation.table)
    build = f"CREATE UNIQUE INDEX CONCURRENTLY {quote(name)} ON {table} ({columns})"
    adopt = f"ALTER TABLE {table} ADD CONSTRAINT {quote(name)} PRIMARY KEY USING INDEX {quote(name)}"
    return Step(
        f"add the primary key of {operation.table}",
        f"{_building(operation.table)}; then ACCESS EXCLUSIVE: reads and writes wait {_INSTANT}",
        (
            *_drop_leftover(operation.leftover),
            Batch((build,), alone=True, harmless=True, builds_index=name),
            Batch((adopt,)),
        ),
    )


@render.register
def _(operation: BuildIndex) -> Step:
    statement = _one_line(ddl.CreateIndex(_index(_table(operation.table), operation.index)))
    build = statement.replace("INDEX ", "INDEX CONCURRENTLY ", 1)
    again = " again (an earlier build did not finish)" if operation.leftover else ""
    return Step(
        f"build index {operation.index}{again}",
        _building(operation.table),
        (
            *_drop_leftover(operation.leftover),
            Batch((build,), alone=True, harmless=True, builds_index=operation.index),
        ),
    )


@render.register
def _(operation: AddConstraint) -> Step:
    constraint = _constraint(_table(operation.table), operation.constraint)
    # Without the flag, SQLAlchemy would permanently remove the constraint from the table's CREATE TABLE.
    statement = f"{_one_line(ddl.AddConstraint(constraint, isolate_from_table=False))} NOT VALID"
    if operation.referenced:
        both = " and ".join(dict.fromkeys((operation.table, operation.referenced)))
        locks = f"SHARE ROW EXCLUSIVE on {both}: writes wait {_INSTANT}; no row is read"
    else:
        locks = f"ACCESS EXCLUSIVE on {operation.table}: reads and writes wait {_INSTANT}; no row is read"
    kind = "foreign key" if operation.referenced else "check"
    return Step(f"add {kind} {operation.constraint} for new rows", locks, (Batch((statement,)),))


@render.register
def _(operation: ValidateConstraint) -> Step:
    statement = f"ALTER TABLE {quote(operation.table)} VALIDATE CONSTRAINT {quote(operation.constraint)}"
    return Step(
        f"validate {operation.constraint} for existing rows",
        f"SHARE UPDATE EXCLUSIVE on {operation.table}, for one scan: reads and writes go on",
        (Batch((statement,), harmless=True),),
    )


@render.register
def _(operation: InsertSeed) -> Step:
    rows = f"{len(operation.rows)} row{'s' if len(operation.rows) != 1 else ''}"
    return Step(
        f"insert {rows} that TMI needs into {operation.table}",
        f"ROW EXCLUSIVE on {operation.table}, for milliseconds, as any INSERT",
        (Batch(tuple(row.insert_sql(Base.metadata) for row in operation.rows), harmless=True),),
    )


def _building(table: str) -> str:
    return (
        f"SHARE UPDATE EXCLUSIVE on {table}, for two scans: reads and writes go on; waits for older transactions to end"
    )


def _drop_leftover(leftover: str | None) -> tuple[Batch, ...]:
    if leftover is None:
        return ()
    return (Batch((f"DROP INDEX CONCURRENTLY IF EXISTS {quote(leftover)}",), alone=True, harmless=True),)


def _table(name: str) -> Table:
    return Base.metadata.tables[name]


def _index(table: Table, name: str) -> Index:
    return next(index for index in table.indexes if index.name == name)


def _constraint(table: Table, name: str) -> Constraint:
    return next(one for one in table.constraints if one.name == name and not isinstance(one, UniqueConstraint))


def _type(column: Column[object]) -> str:
    return column.type.compile(dialect=DIALECT)


def _lines(element: ddl.ExecutableDDLElement) -> str:
    text = str(element.compile(dialect=DIALECT)).strip().replace("\t", "    ")
    return "\n".join(line.rstrip() for line in text.splitlines())


def _one_line(element: ddl.ExecutableDDLElement) -> str:
    return " ".join(str(element.compile(dialect=DIALECT)).split())
