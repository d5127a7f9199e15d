"""Executes a rescue: writes the planned rows in one transaction, compares them with the past, and commits.

1. Stage the rows, before anything is locked. 2. Lock the rows to update, and require that they are as planned. 3. Write
   table by table, parents first (`writing.py`). 4. Advance sequences, read everything back, commit.

Other sessions may keep writing. If one of them has changed a relevant row or definition since the plan, the rescue
stops and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import current_transaction
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import require_clear
from tmi_ops.rescue.checks import check_rows
from tmi_ops.rescue.definitions import Definitions, lost_definitions
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.planning import RescuePlan, planned_digest, required_links
from tmi_ops.rescue.sequences import move_sequences
from tmi_ops.rescue.session import Sides, read_again
from tmi_ops.rescue.trigger_rows import require_missing
from tmi_ops.rescue.values_only import with_values_only
from tmi_ops.rescue.writing import PLAN_AGAIN, Writing, lock_changing

LOCK_TIMEOUT_S = 10
_ROLLED_BACK = "Everything was rolled back; nothing was changed."


@dataclass(frozen=True)
class Written:
    """Written rows of one table; triggers changed `altered` of them, in the columns `altered_columns`."""

    inserted: int
    updated: int
    altered: int = 0
    altered_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rescued:
    """What was done and committed.

    Args:
        tables: by name.
        sequences: the new value of each sequence that was advanced.
        recreated: recreated tables, and objects that had been dropped with them.
        checks: what was checked before the commit, one sentence each.
        phases: seconds by phase.
    """

    plan: RescuePlan
    tables: Mapping[str, Written]
    sequences: Mapping[str, int]
    recreated: tuple[str, ...]
    checks: tuple[str, ...]
    phases: Mapping[str, float]

    @property
    def rows(self) -> int:
        return sum(table.inserted + table.updated for table in self.tables.values())


@dataclass
class _Progress:
    """The object being worked on, for error messages, and the time of each phase."""

    at: str = ""
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + time.monotonic() - begun


def execute_rescue(
    sides: Sides, plan: RescuePlan, report: Report, before_commit: Callable[[int, Rescued], None] | None = None
) -> Rescued:
    """Execute the plan, completely or not at all.

    Args:
        sides: those of the plan, still open.
        before_commit: called just before the commit with the transaction id and the result. A caller that records both
            can ask the server afterwards whether the transaction committed, whatever happened to us.

    Raises:
        RecoveryError: there are unresolved conflicts, the live database has changed since the plan, or it rejected a
            row. Nothing was changed then.
    """
    _require_solved(plan)
    if plan.selection.values is not None:
        sides = with_values_only(sides, plan.selection.values)
    pairs = _written_pairs(sides, plan)
    if planned_digest(sides, list(pairs.values())) != plan.digest:
        raise RecoveryError("This plan was made from another comparison.", hint=PLAN_AGAIN, code=Code.ROWS_CHANGED)
    definitions = lost_definitions(sides, [pair for pair in pairs.values() if pair.now is None])
    progress = _Progress()
    try:
        with sides.now.transaction():
            sides.now.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            _require_same_shape(sides, pairs)
            tables, sequences, checks = _write_all(sides, plan, pairs, definitions, progress, report)
            with progress.timed("foreign keys"):
                sides.now.execute("SET CONSTRAINTS ALL IMMEDIATE")
            rescued = Rescued(plan, tables, sequences, definitions.dropped.texts, checks, progress.phases)
            if before_commit is not None:
                before_commit(current_transaction(sides.now), rescued)
    except psycopg.Error as error:
        raise refused(error, progress.at, _after_triggers(plan)) from error
    for pair in pairs.values():
        if pair.now is None:
            sides.now.execute(sql.SQL("ANALYZE {}").format(pair.table))
    return rescued


def _write_all(
    sides: Sides,
    plan: RescuePlan,
    pairs: Mapping[TableName, Pair],
    definitions: Definitions,
    progress: _Progress,
    report: Report,
) -> tuple[dict[str, Written], dict[str, int], tuple[str, ...]]:
    now, required = sides.now, required_links(sides)
    writing = Writing(sides, plan, required)
    with progress.timed("definitions"):
        progress.at = "the tables' definitions"
        definitions.create(now)
    with progress.timed("stage"), report.phase("stage the rows", total=plan.rows, unit="rows") as phase:
        for pair in pairs.values():
            progress.at = str(pair.name)
            phase.advance(writing.stage(pair))
    for pair in pairs.values():
        require_missing(now, pair, PLAN_AGAIN)
        lock_changing(now, pair)
    now.execute("SET CONSTRAINTS ALL DEFERRED")
    counts: dict[str, tuple[int, int]] = {}
    with progress.timed("write"), report.phase("write the rows", total=plan.rows, unit="rows") as phase:
        for group in plan.order:
            progress.at = " and ".join(map(str, group))
            written = writing.write([pairs[name] for name in group])
            counts |= written
            phase.advance(sum(sum(count) for count in written.values()))
    with progress.timed("definitions"):
        progress.at = "the tables' constraints and indexes"
        # A table with deferred foreign key checks cannot be altered.
        now.execute("SET CONSTRAINTS ALL IMMEDIATE")
        definitions.complete(now)
    progress.at = "the sequences"
    sequences = move_sequences(sides, list(pairs.values()))
    with progress.timed("check"), report.phase("compare with the past", total=len(pairs), unit="tables") as phase:
        progress.at = "the check"
        checked = check_rows(now, plan, pairs, counts, required, writing.stage_whole, phase)
    tables = {name: Written(*counts[name], altered.rows, altered.columns) for name, altered in checked.altered.items()}
    return tables, sequences, (*checked.texts, *_describe_made(plan, writing.made))


def _describe_made(plan: RescuePlan, made: Mapping[str, int]) -> tuple[str, ...]:
    triggers = " and ".join(fire for table in plan.tables for fire in table.fires if "(after," in fire)
    return tuple(
        f"{rows:,} rows of {table} that triggers inserted in this transaction ({triggers}) were updated to the past"
        for table, rows in made.items()
    )


def _written_pairs(sides: Sides, plan: RescuePlan) -> dict[TableName, Pair]:
    return {name: sides.pairs[name] for group in plan.order for name in group}


def _require_solved(plan: RescuePlan) -> None:
    require_clear(plan.barriers)
    if plan.unsolved:
        rows = sum(conflict.rows for conflict in plan.unsolved)
        raise RecoveryError(
            f"{rows:,} rows conflict with current rows, and the policy {plan.selection.policy} does not resolve that.",
            hint="review the conflicts, then choose --conflicts keep-current, take-past or skip",
            code=Code.CONFLICTS,
        )


def _require_same_shape(sides: Sides, pairs: Mapping[TableName, Pair]) -> None:
    living = read_again(sides).living
    for name, pair in pairs.items():
        if living.tables.get(name) != pair.now:
            raise RecoveryError(
                f"The definition of {name} has changed since the plan.", hint=PLAN_AGAIN, code=Code.ROWS_CHANGED
            )


def _after_triggers(plan: RescuePlan) -> str:
    """A description of the triggers that may insert rows of their own."""
    return "; ".join(
        f"{fire} of {table.table}"
        for table in plan.tables
        if table.written
        for fire in table.fires
        if "(after," in fire
    )


def refused(error: psycopg.Error, at: str, triggers: str = "") -> RecoveryError:
    """The error of a transaction that the live server rolled back while working on `at`.

    Args:
        triggers: a description of those that may have inserted rows of their own.
    """
    said = first_line(error)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return RecoveryError(
            f"Another session has held a lock on {at} for {LOCK_TIMEOUT_S} s.",
            hint="see pg_stat_activity, and pg_prepared_xacts for prepared transactions; then try again",
            transient=True,
        )
    if isinstance(error, psycopg.errors.UniqueViolation) and triggers:
        return RecoveryError(
            f"The server rejected {at}: {said}. Triggers that fired may have inserted that row: {triggers}.",
            detail=_ROLLED_BACK,
            hint=f"restore without {at} (--only), or let the table's owner disable the trigger temporarily",
        )
    if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
        return RecoveryError(f"The server rejected {at}: {said}.", detail=_ROLLED_BACK, hint=PLAN_AGAIN, transient=True)
    return RecoveryError(f"The server rejected {at}: {said}.", detail=_ROLLED_BACK, hint=_advice(error, at))


def _advice(error: psycopg.Error, at: str) -> str:
    """The remedy; a new plan helps only if something has changed since."""
    if isinstance(error, psycopg.errors.UniqueViolation | psycopg.errors.ForeignKeyViolation):
        return PLAN_AGAIN
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"run this as the owner of {at}"
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.InsufficientResources):
        return "free resources on the server, then run the same command again"
    if isinstance(error, psycopg.errors.OperationalError):
        return "check the server with `tmi-ops doctor`, then run the same command again"
    return f"see the server's message about {at}; rows that it rejects can be excluded with --where"
