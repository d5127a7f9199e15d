"""Executes the restore of columns: adds, fills, compares and completes them in one transaction.

The table is locked exclusively from the first statement on, so the application waits. No other column of any row may
change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import current_transaction
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import require_clear
from tmi_ops.rescue.columns.definition import WasColumn
from tmi_ops.rescue.columns.planning import ColumnsPlan
from tmi_ops.rescue.columns.values import STAGED, filled, places, stage_values
from tmi_ops.rescue.definitions import run_script
from tmi_ops.rescue.execution import LOCK_TIMEOUT_S, refused
from tmi_ops.rescue.pairs import Pair, equal, find_table
from tmi_ops.rescue.session import Sides, read_again

_BEFORE = sql.Identifier("pg_temp", "rescue_before")
_KEPT = "Everything was rolled back; nothing was changed."
_PLAN_AGAIN = "run the same command again to make a new plan"


@dataclass(frozen=True)
class ColumnsRestored:
    """What was done and committed.

    Args:
        rows: how many rows got their past values.
        nullable: columns that were NOT NULL and now allow NULL, because some rows have no value.
        altered: rows in which triggers changed something else, which was accepted.
    """

    plan: ColumnsPlan
    rows: int
    nullable: tuple[str, ...]
    altered: int
    checks: tuple[str, ...]


def execute_columns(
    sides: Sides,
    plan: ColumnsPlan,
    report: Report,
    before_commit: Callable[[int, ColumnsRestored], None] | None = None,
) -> ColumnsRestored:
    """Execute the plan, completely or not at all.

    Args:
        sides: those of the plan, still open.
        before_commit: see `execution.execute_rescue`.

    Raises:
        RecoveryError: there is a barrier, the live database rejected it, or a value differs. Nothing was changed then.
    """
    require_clear(plan.barriers)
    pair, now = find_table(sides.pairs, sides.then, plan.table), sides.now
    try:
        with now.transaction(), report.phase("fill the column", total=plan.rows, unit="rows") as phase:
            stage_values(sides, pair, plan.columns, picked=bool(plan.selection.rows))
            _lock(sides, pair)
            _add(now, plan)
            rows = _fill(now, pair, plan)
            phase.advance(rows)
            nullable = _complete(now, pair, plan)
            restored = ColumnsRestored(plan, rows, nullable, *_checked(now, pair, plan, rows))
            if before_commit is not None:
                before_commit(current_transaction(now), restored)
    except psycopg.errors.IntegrityError as error:
        raise RecoveryError(
            f"The past values violate a constraint: {first_line(error)}.",
            detail=_KEPT,
            hint="first restore the rows that they reference, or change the rows that conflict; then try again",
            code=Code.CANNOT_RESTORE_ROWS,
        ) from error
    except psycopg.Error as error:
        raise refused(error, f"{plan.names} of {plan.table}") from error
    return restored


def _lock(sides: Sides, pair: Pair) -> None:
    """Lock the table, and record the content of every row."""
    sides.now.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    sides.now.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(pair.table))
    if read_again(sides).living.tables.get(pair.name) != pair.now:
        raise RecoveryError(
            f"The definition of {pair.name} has changed since the plan.", hint=_PLAN_AGAIN, code=Code.ROWS_CHANGED
        )
    sides.now.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {}, {} AS digest FROM ONLY {} l").format(
            _BEFORE, pair.keys_as_places("l"), pair.digest("l"), pair.table
        )
    )


def _add(now: psycopg.Connection[Any], plan: ColumnsPlan) -> None:
    for statement in plan.add:
        now.execute(statement.encode())
    run_script(now, plan.dependents.before)


def _fill(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan) -> int:
    chosen = filled(plan.columns)
    if not chosen:
        return 0
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = s.{}").format(sql.Identifier(column.name), sql.Identifier(place))
        for column, place in zip(chosen, places(chosen), strict=True)
    )
    # Triggers must see the application's search path.
    now.execute("SET LOCAL search_path TO DEFAULT")
    rows = now.execute(
        sql.SQL("UPDATE ONLY {} AS l SET {} FROM {} s WHERE {}").format(
            pair.table, assignments, STAGED, pair.same_key("l", "s")
        )
    ).rowcount
    # Pending deferred constraints would make ALTER TABLE fail.
    now.execute("SET CONSTRAINTS ALL IMMEDIATE")
    return rows


def _complete(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan) -> tuple[str, ...]:
    """Recreate dependent objects, and set NOT NULL if every row has a value. Returns the columns where one has none."""
    for statement in plan.complete:
        now.execute(statement.encode())
    now.execute("SET CONSTRAINTS ALL IMMEDIATE")
    nullable = []
    for never in plan.never_null:
        empty = sql.SQL("SELECT FROM ONLY {} WHERE {} IS NULL LIMIT 1").format(pair.table, sql.Identifier(never.column))
        if now.execute(empty).fetchone() is not None:
            nullable.append(never.column)
            continue
        for statement in never.statements:
            now.execute(statement.encode())
    run_script(now, plan.dependents.after)
    now.execute("SET LOCAL search_path TO pg_catalog")
    return tuple(nullable)


def _checked(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan, rows: int) -> tuple[int, tuple[str, ...]]:
    """Require that each row has its past values and is otherwise unchanged. Returns how many differ, and the checks."""
    accepted = plan.selection.accept_triggers
    by = f", because of triggers: {', '.join(plan.fires)}" if plan.fires else ""
    wrong = _count_wrong(now, pair, filled(plan.columns))
    altered = _count(
        now,
        sql.SQL("SELECT count(*) FROM ONLY {} l JOIN {} b ON {} WHERE {} <> b.digest").format(
            pair.table, _BEFORE, equal("l", pair.key, "b", pair.places), pair.digest("l")
        ),
    )
    if (wrong or altered) and not accepted:
        what = f"{wrong:,} values of {plan.names} would differ from the past"
        other = f"{altered:,} rows of {plan.table} would change in other columns"
        raise RecoveryError(
            f"{' and '.join(words for words, count in ((what, wrong), (other, altered)) if count)}{by}.",
            detail=_KEPT,
            hint="accept the triggers' changes with --accept-triggers, or let the table's owner disable the trigger "
            "temporarily",
            code=Code.RESULT_DIFFERS,
        )
    return max(wrong, altered), (
        f"{rows:,} rows filled",
        f"{rows - wrong:,} of them read back and equal to the past",
        "no other column of any row changed" if not altered else f"triggers changed other columns of {altered:,} rows",
    )


def _count_wrong(now: psycopg.Connection[Any], pair: Pair, columns: list[WasColumn]) -> int:
    if not columns:
        return 0
    differs = sql.SQL(" OR ").join(
        sql.SQL("ROW(l.{})::text <> ROW(s.{})::text").format(sql.Identifier(column.name), sql.Identifier(place))
        for column, place in zip(columns, places(columns), strict=True)
    )
    return _count(
        now,
        sql.SQL("SELECT count(*) FROM ONLY {} l JOIN {} s ON {} WHERE {}").format(
            pair.table, STAGED, pair.same_key("l", "s"), differs
        ),
    )


def _count(now: psycopg.Connection[Any], query: sql.Composed) -> int:
    row = now.execute(query).fetchone()
    return int(row[0]) if row else 0
