"""What a migration leaves to a person: rows in the way, and differences that adding alone cannot mend."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import MetaData

from tmi_ops.schema.conflicts import Conflict
from tmi_ops.schema.operations import Blocked
from tmi_ops.schema.state import SchemaState
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch

_RERUN = "then run `tmi-ops migrate` again"
_ADDITIVE = "It is left as it is: a migration only adds."


def find_blocked(state: SchemaState, metadata: MetaData) -> tuple[Blocked, ...]:
    return (
        *(_conflict(state, one) for one in state.conflicts),
        *_columns_to_fill(state, metadata),
        *_column_differences(state),
        *_structure(state),
    )


def keyless_tables(state: SchemaState) -> frozenset[str]:
    """Tables whose primary key is missing or another and cannot be added now, so that nothing can refer to them."""
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
        "value": f"{conflict.describe()} hold a value the CHECK refuses, so it stays NOT VALID: new rows are "
        "checked; these stay and can be read, but changing one fails until its value is corrected.",
        "reference": f"{conflict.describe()} refer to a row that is not there, so the foreign key stays NOT VALID: "
        "new rows are checked; these stay and can be read.",
        "null": f"{conflict.describe()} hold NULL, so the column cannot be made NOT NULL.",
        "duplicate": f"{conflict.describe()} share their values, so the unique index cannot be built.",
    }
    remedies = {
        "value": f"correct these rows, {_RERUN}: it validates the constraint",
        "reference": f"correct or delete these rows, {_RERUN}: it validates the constraint",
        "null": f"fill the column in these rows, {_RERUN}",
        "duplicate": f"make these rows differ or merge them, {_RERUN}",
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
                "The table has rows and the column no default, so it is added without NOT NULL.",
                f"fill the column in every row, {_RERUN}: it adds NOT NULL",
            )


def _column_differences(state: SchemaState) -> Iterator[Blocked]:
    for kind in state.columns.types:
        yield Blocked(
            kind.table,
            kind.column,
            f"The column is {kind.live}, the model says {kind.model}. {_ADDITIVE}",
            f"ALTER TABLE {kind.table} ALTER COLUMN {kind.column} TYPE {kind.model}"
            + ("" if kind.width == "narrower" else "; first see what it would cut off or rewrite"),
        )
    for nullability in state.columns.nullability:
        if not nullability.live_nullable:
            yield Blocked(
                nullability.table,
                nullability.column,
                f"The column is NOT NULL, the model allows NULL. {_ADDITIVE}",
                f"ALTER TABLE {nullability.table} ALTER COLUMN {nullability.column} DROP NOT NULL",
            )
    for default in state.columns.defaults:
        if default.live is not None and default.model is not None:
            yield Blocked(
                default.table,
                default.column,
                f"The default is {default.live}, the model says {default.model}. {_ADDITIVE}",
                f"ALTER TABLE {default.table} ALTER COLUMN {default.column} SET DEFAULT {default.model}",
            )


def _structure(state: SchemaState) -> Iterator[Blocked]:
    for key in state.structure.wrong_primary_keys:
        if key.live is not None:
            yield Blocked(
                key.table,
                key.live.name,
                f"The primary key is ({', '.join(key.live.columns)}), the model says ({', '.join(key.columns)}). "
                f"{_ADDITIVE}",
                "decide which is right, and change the key in a maintenance window",
            )
        elif state.columns.lacks(key.table, key.columns) and key.table in state.filled_tables:
            yield Blocked(
                key.table,
                f"{key.table}_pkey",
                "The table has rows, and the columns of its primary key are only being added.",
                f"fill them with unique values, {_RERUN}: it adds the key",
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
                index.table, index.name, "Somebody is building this index now.", "wait until it is built and look again"
            )
    matches: tuple[CheckMatch | ForeignKeyMatch, ...] = (*state.structure.foreign_keys, *state.structure.checks)
    keyless = keyless_tables(state)
    for match in matches:
        live = match.live.definition if match.live else ""
        if match.state == "differs":
            yield Blocked(
                match.table,
                match.name,
                f"The database has another constraint for this: {live}. {_ADDITIVE}",
                f"ALTER TABLE {match.table} DROP CONSTRAINT {match.live.name if match.live else ''}, {_RERUN}",
            )
        elif match.state == "missing" and isinstance(match, ForeignKeyMatch) and match.referenced in keyless:
            yield Blocked(
                match.table,
                match.name,
                f"It cannot be added while {match.referenced} lacks its primary key.",
                f"mend the primary key of {match.referenced}, {_RERUN}",
            )
        elif match.state == "name taken":
            yield Blocked(
                match.table,
                match.name,
                f"Another constraint has this name: {live}.",
                f"ALTER TABLE {match.table} RENAME CONSTRAINT {match.name} TO {match.name}_old, {_RERUN}",
            )
