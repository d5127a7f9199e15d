"""What would keep a rescue from being done at all, seen while it is planned: rights, columns, sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

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
    """What keeps a plan from being carried out, a sentence, and what clears it away."""

    what: str
    hint: str


def require_clear(barriers: Sequence[Barrier]) -> None:
    """Raises:
    RecoveryError: something is in the way of the plan that has these.
    """
    if barriers:
        raise RecoveryError(barriers[0].what, detail="Nothing was changed.", hint=barriers[0].hint)


def rehearse_update(now: psycopg.Connection[Any], table: sql.Composable, columns: Iterable[str]) -> int | None:
    """Set `columns` of one row to what they are, and take it back at once: what triggers do, only they know.

    Returns:
        The rows that were changed; None where the row is just being changed by another session, so rows can be.

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
    RecoveryError: nothing can be written on this server, temporary tables included.
    """
    row = now.execute("SELECT pg_is_in_recovery()").fetchone()
    if row and row[0]:
        raise RecoveryError(
            f"{now.info.host}:{now.info.port} is a standby: it takes no writes.",
            hint="set POSTGRES_HOST and POSTGRES_PORT to its primary",
        )


def find_barriers(sides: Sides, written: Sequence[Pair], inserting: Collection[str]) -> tuple[Barrier, ...]:
    """What keeps these tables' rows from being written.

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
            f"{pair.name} has a column since that must be given and has no default: {', '.join(needed)}.",
            f"give it one for a while: ALTER TABLE {pair.name} ALTER COLUMN {needed[0]} SET DEFAULT ...",
        )


def _creating(now: psycopg.Connection[Any], pair: Pair) -> Iterator[Barrier]:
    row = now.execute(_CREATING, [pair.name.schema]).fetchone()
    if row is None:
        yield Barrier(
            f"The schema {pair.name.schema} of {pair.name} is gone, too.", f"CREATE SCHEMA {pair.name.schema}"
        )
    elif not row[1]:
        yield Barrier(
            f"{row[0]} may not create {pair.name} again.",
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
            f"{role} may not {' and '.join(right.lower() for right in missing)} rows of {pair.name}.",
            f"run this as {owner}, or GRANT {', '.join(missing)} ON {pair.name} TO {role}",
        )
    if filtered:
        yield Barrier(
            f"Row security hides rows of {pair.name} from {role}.", f"run this as {owner}, or as a role with BYPASSRLS"
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
                f"{row[0]} may not move the sequence {sequence.name} of {pair.name}.",
                f"GRANT SELECT, UPDATE ON SEQUENCE {sequence.name} TO {row[0]}",
            )
