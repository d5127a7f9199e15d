"""Plans the steps that add what is missing. Nothing is ever dropped, narrowed or rewritten.

Order: columns and keys of existing tables, new tables, indexes, constraints (NOT VALID, then validated unless rows
violate them), seed rows. So each step finds the objects it references.

A constraint that rows violate is added NOT VALID and stays so: until the rows are corrected, the plan has only a note
about it. The next plan counts the rows again, and validates the constraint as soon as none violates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import MetaData

from tmi_ops.schema.blockers import find_blocked, keyless_tables
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
from tmi_ops.schema.seed import NATURAL_KEYS
from tmi_ops.schema.state import SchemaState
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch


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
