"""Barriers: what would make a rescue fail, found while planning: rights, columns, sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides

_RIGHTS = """
SELECT current_user::text, pg_get_userbyid(c.relowner)::text,
       array_remove(ARRAY[
           CASE WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END,
           CASE WHEN NOT (has_table_privilege(c.oid, 'INSERT') OR (
               SELECT bool_and(has_column_privilege(c.oid, a.attnum, 'INSERT')) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attname = ANY (%(columns)s))) THEN 'INSERT' END,
           CASE WHEN NOT (has_table_privilege(c.oid, 'UPDATE') OR (
               SELECT bool_and(has_column_privilege(c.oid, a.attnum, 'UPDATE')) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attname = ANY (%(columns)s))) THEN 'UPDATE' END], NULL),
       row_security_active(c.oid)
FROM pg_class c WHERE c.oid = %(table)s::regclass"""
_CREATING = """
SELECT current_user::text, has_schema_privilege(n.oid, 'CREATE')
FROM pg_namespace n WHERE n.nspname = %s"""


@dataclass(frozen=True)
class Barrier:
    """What prevents a plan from being executed, a sentence, and its remedy."""

    what: str
    hint: str


def require_clear(barriers: Sequence[Barrier]) -> None:
    """Raises:
    RecoveryError: there is a barrier.
    """
    if barriers:
        raise RecoveryError(barriers[0].what, hint=barriers[0].hint, code=Code.CANNOT_RESTORE_ROWS)


def rehearse_update(now: psycopg.Connection[Any], table: sql.Composable, columns: Iterable[str]) -> int | None:
    """Set `columns` of one row to their own values and roll that back, to see what triggers do.

    Returns:
        The number of rows updated; None if another session has the row locked, so updates are possible.

    Raises:
        psycopg.Error: the server refused it.
    """
    assignments = sql.SQL(", ").join(sql.SQL("{0} = {0}").format(sql.Identifier(name)) for name in columns)
    one_row = sql.SQL("UPDATE ONLY {0} SET {1} WHERE ctid = (SELECT ctid FROM ONLY {0} LIMIT 1)")
    try:
        with now.transaction(force_rollback=True):
            now.execute("SET LOCAL search_path TO DEFAULT")
            now.execute("SET LOCAL lock_timeout = '1s'")
            return now.execute(one_row.format(table, assignments)).rowcount
    except psycopg.errors.LockNotAvailable:
        return None


def require_primary(now: psycopg.Connection[Any]) -> None:
    """Raises:
    RecoveryError: the server is a standby, which cannot even write temporary tables.
    """
    row = now.execute("SELECT pg_is_in_recovery()").fetchone()
    if row and row[0]:
        raise RecoveryError(
            f"{now.info.host}:{now.info.port} is a standby and cannot be written to.",
            hint="set POSTGRES_HOST and POSTGRES_PORT to its primary",
        )


def find_barriers(sides: Sides, written: Sequence[Pair], inserting: Collection[str]) -> tuple[Barrier, ...]:
    """What prevents rows of these tables from being written.

    Args:
        inserting: tables that rows are inserted into.
    """
    return tuple(dict.fromkeys(_found(sides, written, inserting)))


def _found(sides: Sides, written: Sequence[Pair], inserting: Collection[str]) -> Iterator[Barrier]:
    for pair in written:
        if str(pair.name) in inserting:
            yield from _columns(pair)
        if pair.now is None:
            yield from _creating(sides.now, pair)
        else:
            yield from _rights(sides.now, pair, inserts=str(pair.name) in inserting)
            yield from _sequences(sides.now, pair)


def _columns(pair: Pair) -> Iterator[Barrier]:
    needed = [column.name for column in pair.new_columns if column.must_be_given]
    if needed:
        yield Barrier(
            f"{pair.name} has new NOT NULL columns without a default: {', '.join(needed)}.",
            f"set a default temporarily: ALTER TABLE {pair.name} ALTER COLUMN {needed[0]} SET DEFAULT ...",
        )


def _creating(now: psycopg.Connection[Any], pair: Pair) -> Iterator[Barrier]:
    row = now.execute(_CREATING, [pair.name.schema]).fetchone()
    if row is None:
        yield Barrier(
            f"The schema {pair.name.schema} of {pair.name} does not exist.", f"CREATE SCHEMA {pair.name.schema}"
        )
    elif not row[1]:
        yield Barrier(
            f"The role {row[0]} is not allowed to create {pair.name}.",
            f"GRANT CREATE ON SCHEMA {pair.name.schema} TO {row[0]}, or run this as a superuser",
        )


def _rights(now: psycopg.Connection[Any], pair: Pair, *, inserts: bool) -> Iterator[Barrier]:
    columns = [column.name for column in pair.columns]
    found = now.execute(_RIGHTS, {"table": pair.table.as_string(now), "columns": columns}).fetchone()
    if found is None:
        return
    role, owner, missing, filtered = found
    missing = [right for right in missing if right != "INSERT" or inserts]
    if missing:
        yield Barrier(
            f"The role {role} lacks {' and '.join(missing)} on {pair.name}.",
            f"run this as {owner}, or GRANT {', '.join(missing)} ON {pair.name} TO {role}",
        )
    if filtered:
        yield Barrier(
            f"Row security hides rows of {pair.name} from the role {role}.",
            f"run this as {owner}, or as a role with BYPASSRLS",
        )


def _sequences(now: psycopg.Connection[Any], pair: Pair) -> Iterator[Barrier]:
    moved = {column.name for column in pair.columns}
    for sequence in pair.now.sequences if pair.now and not pair.values_only else ():
        row = now.execute(
            "SELECT current_user::text, has_sequence_privilege(%(name)s, 'UPDATE') AND "
            "has_sequence_privilege(%(name)s, 'SELECT')",
            {"name": sequence.name.identifier.as_string(now)},
        ).fetchone()
        if row and not row[1] and sequence.column in moved:
            yield Barrier(
                f"The role {row[0]} is not allowed to set the sequence {sequence.name} of {pair.name}.",
                f"GRANT SELECT, UPDATE ON SEQUENCE {sequence.name} TO {row[0]}",
            )
