"""Plans the steps that add what is missing. Nothing is ever dropped, narrowed or rewritten.

Order: columns and keys of existing tables, new tables, indexes, constraints (NOT VALID, then validated unless rows
violate them), seed rows. So each step finds the objects it references.

A constraint that rows violate is added NOT VALID and stays so: until the rows are corrected, the plan has only a note
about it. The next plan counts the rows again, and validates the constraint as soon as none violates it.
Differences that adding cannot fix are left to a person, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import MetaData

from tmi_ops.schema.conflicts import Conflict
from tmi_ops.schema.models import Base
from tmi_ops.schema.operations import (
    AddColumn,
    AddConstraint,
    AddPrimaryKey,
    Blocked,
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
from tmi_ops.schema.seed import NATURAL_KEYS
from tmi_ops.schema.state import SchemaState
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch

_RERUN = "then run `tmi-ops migrate` again"
_ADDITIVE = "It is not changed: a migration only adds."


def plan_from(
    state: SchemaState, *, seed: bool = True, creates_database: bool = False, metadata: MetaData = Base.metadata
) -> MigrationPlan:
    """Decide what to do. Pure: the same state gives the same plan."""
    operations = (
        *([CreateDatabase(state.live.database)] if creates_database else []),
        *_columns(state, metadata),
        *_primary_keys(state),
        *_tables(state, metadata),
        *_indexes(state),
        *_constraints(state),
        *(_seed(state) if seed else []),
    )
    return MigrationPlan(state.live.database, operations, find_blocked(state, metadata))


def _columns(state: SchemaState, metadata: MetaData) -> Iterator[Operation]:
    for table, name in state.columns.missing_columns:
        column = metadata.tables[table].columns[name]
        can_be_required = column.server_default is not None or table not in state.filled_tables
        yield AddColumn(table, name, required=not column.nullable and can_be_required)
    for default in state.columns.defaults:
        if default.live is None:
            yield SetDefault(default.table, default.column)
    for difference in state.columns.nullability:
        violated = state.conflict(difference.table, difference.column, "null")
        if difference.live_nullable and not violated:
            yield RequireValue(difference.table, difference.column)


def _primary_keys(state: SchemaState) -> Iterator[Operation]:
    keyless = keyless_tables(state)
    for key in state.structure.wrong_primary_keys:
        name = f"{key.table}_pkey"
        if key.table not in keyless:
            leftover = next((one.name for one in state.live.indexes if one.name == name and not one.valid), None)
            yield AddPrimaryKey(key.table, key.columns, leftover)


def _tables(state: SchemaState, metadata: MetaData) -> Iterator[Operation]:
    missing = set(state.columns.missing_tables)
    for table in metadata.sorted_tables:
        if table.name in missing:
            names = sorted(str(index.name) for index in table.indexes)
            referenced = {key.referred_table.name for key in table.foreign_key_constraints}
            indexes = tuple(BuildIndex(table.name, name) for name in names)
            yield CreateTable(table.name, indexes, tuple(sorted(referenced - missing)))


def _indexes(state: SchemaState) -> Iterator[Operation]:
    for match in state.structure.indexes:
        if match.state in ("missing", "invalid") and not state.conflict(match.table, match.name, "duplicate"):
            leftover = match.live.name if match.live and match.state == "invalid" else None
            yield BuildIndex(match.table, match.name, leftover)


def _constraints(state: SchemaState) -> Iterator[Operation]:
    matches: Iterable[CheckMatch | ForeignKeyMatch] = (*state.structure.foreign_keys, *state.structure.checks)
    keyless = keyless_tables(state)
    to_validate: list[Operation] = []
    for match in matches:
        referenced = match.referenced if isinstance(match, ForeignKeyMatch) else None
        name = match.live.name if match.live and match.state == "not valid" else match.name
        if referenced in keyless and match.state == "missing":
            continue
        if match.state == "missing":
            yield AddConstraint(match.table, name, referenced)
        if match.state in ("missing", "not valid") and not state.conflict(match.table, name):
            to_validate.append(ValidateConstraint(match.table, name, referenced))
    yield from to_validate


def _seed(state: SchemaState) -> Iterator[Operation]:
    for table in NATURAL_KEYS:
        rows = tuple(row for row in state.absent_seed if row.table == table)
        if rows:
            yield InsertSeed(table, rows)


def find_blocked(state: SchemaState, metadata: MetaData) -> tuple[Blocked, ...]:
    return (
        *(_conflict(state, one) for one in state.conflicts),
        *_columns_to_fill(state, metadata),
        *_column_differences(state),
        *_structure(state),
    )


def keyless_tables(state: SchemaState) -> frozenset[str]:
    """Tables whose primary key is missing or wrong and cannot be added now, so no foreign key can reference them."""
    return frozenset(
        key.table
        for key in state.structure.wrong_primary_keys
        if key.live is not None
        or (key.table in state.filled_tables and state.columns.lacks(key.table, key.columns))
        or state.conflict(key.table, f"{key.table}_pkey", "duplicate")
        or any(state.conflict(key.table, column, "null") for column in key.columns)
    )


def _conflict(state: SchemaState, conflict: Conflict) -> Blocked:
    reasons = {
        "value": f"{conflict.describe()} {conflict.verb('violate')} the CHECK, so it stays NOT VALID: new rows are "
        "checked; existing rows stay and can be read, but updating one that violates it fails until it is corrected.",
        "reference": f"{conflict.describe()} {conflict.verb('reference')} a row that does not exist, so the foreign "
        "key stays NOT VALID: new rows are checked; existing rows stay and can be read.",
        "null": f"{conflict.describe()} {conflict.verb('contain')} NULL, so the column cannot be made NOT NULL.",
        "duplicate": f"{conflict.describe()} {conflict.verb('have')} duplicate values, so the unique index cannot be "
        "built.",
    }
    remedies = {
        "value": f"correct these rows, {_RERUN}: it validates the constraint",
        "reference": f"correct or delete these rows, {_RERUN}: it validates the constraint",
        "null": f"set the column in these rows, {_RERUN}",
        "duplicate": f"change or merge these rows, {_RERUN}",
    }
    return Blocked(
        conflict.table,
        conflict.name,
        reasons[conflict.kind],
        remedies[conflict.kind],
        conflict.rows,
        conflict.examples,
    )


def _columns_to_fill(state: SchemaState, metadata: MetaData) -> Iterator[Blocked]:
    for table, name in state.columns.missing_columns:
        column = metadata.tables[table].columns[name]
        if not column.nullable and column.server_default is None and table in state.filled_tables:
            yield Blocked(
                table,
                name,
                "The table has rows and the column has no default, so the column is added without NOT NULL.",
                f"set the column in every row, {_RERUN}: it adds NOT NULL",
            )


def _column_differences(state: SchemaState) -> Iterator[Blocked]:
    for kind in state.columns.types:
        yield Blocked(
            kind.table,
            kind.column,
            f"The type is {kind.live}; the model has {kind.model}. {_ADDITIVE}",
            f"ALTER TABLE {kind.table} ALTER COLUMN {kind.column} TYPE {kind.model}"
            + ("" if kind.width == "narrower" else "; first check what it would truncate or rewrite"),
        )
    for nullability in state.columns.nullability:
        if not nullability.live_nullable:
            yield Blocked(
                nullability.table,
                nullability.column,
                f"The column is NOT NULL; the model allows NULL. {_ADDITIVE}",
                f"ALTER TABLE {nullability.table} ALTER COLUMN {nullability.column} DROP NOT NULL",
            )
    for default in state.columns.defaults:
        if default.live is not None and default.model is not None:
            yield Blocked(
                default.table,
                default.column,
                f"The default is {default.live}; the model has {default.model}. {_ADDITIVE}",
                f"ALTER TABLE {default.table} ALTER COLUMN {default.column} SET DEFAULT {default.model}",
            )


def _structure(state: SchemaState) -> Iterator[Blocked]:
    for key in state.structure.wrong_primary_keys:
        if key.live is not None:
            yield Blocked(
                key.table,
                key.live.name,
                f"The primary key is ({', '.join(key.live.columns)}); the model has ({', '.join(key.columns)}). "
                f"{_ADDITIVE}",
                "decide which one is right, and change the key in a maintenance window",
            )
        elif state.columns.lacks(key.table, key.columns) and key.table in state.filled_tables:
            yield Blocked(
                key.table,
                f"{key.table}_pkey",
                "The table has rows, and this migration only adds the columns of its primary key.",
                f"set them to unique values, {_RERUN}: it adds the key",
            )
    for index in state.structure.indexes:
        if index.state == "name taken":
            yield Blocked(
                index.table,
                index.name,
                f"Another index has this name: {index.live.definition if index.live else ''}.",
                f"ALTER INDEX {index.name} RENAME TO {index.name}_old, {_RERUN}",
            )
        elif index.state == "being built":
            yield Blocked(
                index.table,
                index.name,
                "This index is being built now.",
                f"wait until it is built, {_RERUN}",
            )
    matches: tuple[CheckMatch | ForeignKeyMatch, ...] = (*state.structure.foreign_keys, *state.structure.checks)
    keyless = keyless_tables(state)
    for match in matches:
        live = match.live.definition if match.live else ""
        if match.state == "differs":
            yield Blocked(
                match.table,
                match.name,
                f"The database has a different constraint: {live}. {_ADDITIVE}",
                f"ALTER TABLE {match.table} DROP CONSTRAINT {match.live.name if match.live else ''}, {_RERUN}",
            )
        elif match.state == "missing" and isinstance(match, ForeignKeyMatch) and match.referenced in keyless:
            yield Blocked(
                match.table,
                match.name,
                f"It cannot be added as long as {match.referenced} lacks its primary key.",
                f"add the primary key of {match.referenced}, {_RERUN}",
            )
        elif match.state == "name taken":
            yield Blocked(
                match.table,
                match.name,
                f"Another constraint has this name: {live}.",
                f"ALTER TABLE {match.table} RENAME CONSTRAINT {match.name} TO {match.name}_old, {_RERUN}",
            )
