"""The deed: columns added, filled, compared and completed in one transaction.

It holds the table exclusively from the first statement on, so the application waits for that long. No other column of
any row may change by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.transactions import current_transaction
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
_KEPT = "All was rolled back: nothing was changed."
_PLAN_AGAIN = "plan it again: the same command compares anew"


@dataclass(frozen=True)
class ColumnsRestored:
    """What was done and committed.

    Args:
        rows: how many have their values again.
        nullable: columns that were never NULL and may be now, as rows have no value for them.
        altered: rows in which triggers changed something else, which was accepted.
    """

    plan: ColumnsPlan
    rows: int
    nullable: tuple[str, ...]
    altered: int
    checks: tuple[str, ...]


def bring_back_columns(
    sides: Sides,
    plan: ColumnsPlan,
    report: Report,
    before_commit: Callable[[int, ColumnsRestored], None] | None = None,
) -> ColumnsRestored:
    """Do what the plan says, all of it or nothing.

    Args:
        sides: those that the plan was made on, still open.
        before_commit: as of `execution.bring_back`.

    Raises:
        RecoveryError: something is in the way, the living database refused, or a value came out otherwise. Nothing was
            changed then.
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
            f"The values of then no longer fit: {first_line(error)}.",
            detail=_KEPT,
            hint="bring back first what they refer to, or change what is in their way; then try again",
        ) from error
    except psycopg.Error as error:
        raise refused(error, f"{plan.names} of {plan.table}") from error
    return restored


def _lock(sides: Sides, pair: Pair) -> None:
    """Nobody else writes from here on; and what every row holds is noted."""
    sides.now.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    sides.now.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(pair.table))
    if read_again(sides).living.tables.get(pair.name) != pair.now:
        raise RecoveryError(f"The definition of {pair.name} has changed since the plan.", hint=_PLAN_AGAIN)
    sides.now.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {}, {} AS digest FROM ONLY {} l").format(
            _BEFORE, pair.keys_as_places("l"), pair.digest("l"), pair.table
        )
    )


def _add(now: psycopg.Connection[Any], plan: ColumnsPlan) -> None:
    for statement in plan.add:
        now.execute(statement.encode())
    run_script(now, plan.belongings.before)


def _fill(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan) -> int:
    chosen = filled(plan.columns)
    if not chosen:
        return 0
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = s.{}").format(sql.Identifier(column.name), sql.Identifier(place))
        for column, place in zip(chosen, places(chosen), strict=True)
    )
    # Triggers see the search path that the application has.
    now.execute("SET LOCAL search_path TO DEFAULT")
    rows = now.execute(
        sql.SQL("UPDATE ONLY {} AS l SET {} FROM {} s WHERE {}").format(
            pair.table, assignments, STAGED, pair.same_key("l", "s")
        )
    ).rowcount
    # Constraints that wait for the commit would keep ALTER TABLE from going on.
    now.execute("SET CONSTRAINTS ALL IMMEDIATE")
    return rows


def _complete(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan) -> tuple[str, ...]:
    """What belongs to the columns; and NOT NULL where every row has a value. Returns the columns where one lacks it."""
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
    run_script(now, plan.belongings.after)
    now.execute("SET LOCAL search_path TO pg_catalog")
    return tuple(nullable)


def _checked(now: psycopg.Connection[Any], pair: Pair, plan: ColumnsPlan, rows: int) -> tuple[int, tuple[str, ...]]:
    """See that each row holds its values, and besides what it held before. Returns how many do not, and what holds."""
    accepted = plan.selection.accept_triggers
    by = f", by {', '.join(plan.fires)}" if plan.fires else ""
    wrong = _count_wrong(now, pair, filled(plan.columns))
    altered = _count(
        now,
        sql.SQL("SELECT count(*) FROM ONLY {} l JOIN {} b ON {} WHERE {} <> b.digest").format(
            pair.table, _BEFORE, equal("l", pair.key, "b", pair.places), pair.digest("l")
        ),
    )
    if (wrong or altered) and not accepted:
        what = f"{wrong:,} values of {plan.names} would not be what they were"
        other = f"{altered:,} rows of {plan.table} would change in other columns, too"
        raise RecoveryError(
            f"{' and '.join(words for words, count in ((what, wrong), (other, altered)) if count)}{by}.",
            detail=_KEPT,
            hint="accept what triggers make of the rows with --accept-triggers, or have the trigger disabled by "
            "its owner for the while",
        )
    return max(wrong, altered), (
        f"{rows:,} rows were filled",
        f"{rows - wrong:,} of them were read again and hold their values of then",
        "no other column of any row was changed" if not altered else f"triggers changed {altered:,} rows otherwise",
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
