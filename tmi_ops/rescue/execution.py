"""The deed: the planned rows are put in place in one transaction, compared with the past, and only then committed.

1. Stage the rows, before anything is locked. 2. Lock the rows that will change and see that they are what the plan saw.
3. Write table by table, parents first (`writing.py`). 4. Move sequences on, read everything again, commit.

Others may go on writing all the while; whatever they did in between makes the rescue stop, not go wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.transactions import current_transaction
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import require_clear
from tmi_ops.rescue.checks import check_rows
from tmi_ops.rescue.definitions import Definitions, lost_definitions
from tmi_ops.rescue.made import require_missing
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.planning import RescuePlan, planned_digest, required_links
from tmi_ops.rescue.sequences import move_sequences
from tmi_ops.rescue.session import Sides, read_again
from tmi_ops.rescue.values_only import with_values_only
from tmi_ops.rescue.writing import PLAN_AGAIN, Writing, lock_changing

LOCK_TIMEOUT_S = 10
_ROLLED_BACK = "All was rolled back: nothing was changed."


@dataclass(frozen=True)
class Written:
    """Rows of one table; `altered` of the inserted or updated ones differ from the past because triggers changed them,
    in the columns `altered_columns`."""

    inserted: int
    updated: int
    altered: int = 0
    altered_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rescued:
    """What was done and committed.

    Args:
        tables: by name.
        sequences: the value that each sequence was moved on to.
        recreated: tables that were created again, and what of others had gone with them.
        checks: what was seen to hold before the commit, a sentence each.
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
class _Deed:
    """Where the deed stands, for an error's message, and how long each phase took."""

    at: str = ""
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + time.monotonic() - begun


def bring_back(
    sides: Sides, plan: RescuePlan, report: Report, before_commit: Callable[[int, Rescued], None] | None = None
) -> Rescued:
    """Do what the plan says, all of it or nothing.

    Args:
        sides: those that the plan was made on, still open.
        before_commit: told the transaction's number and what it did as the last thing before the commit. Who writes
            both down can ask the server afterwards whether it was done, whatever happened to us.

    Raises:
        RecoveryError: conflicts are unsolved, the living database changed since the plan, or it refused a row. Nothing
            was changed then.
    """
    _require_solved(plan)
    if plan.selection.values is not None:
        sides = with_values_only(sides, plan.selection.values)
    pairs = _written_pairs(sides, plan)
    if planned_digest(sides, list(pairs.values())) != plan.digest:
        raise RecoveryError("This plan was made on another comparison.", hint=PLAN_AGAIN)
    definitions = lost_definitions(sides, [pair for pair in pairs.values() if pair.now is None])
    deed = _Deed()
    try:
        with sides.now.transaction():
            sides.now.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            _require_same_shape(sides, pairs)
            tables, sequences, checks = _write_all(sides, plan, pairs, definitions, deed, report)
            with deed.timed("foreign keys"):
                sides.now.execute("SET CONSTRAINTS ALL IMMEDIATE")
            rescued = Rescued(plan, tables, sequences, definitions.fallen.words, checks, deed.phases)
            if before_commit is not None:
                before_commit(current_transaction(sides.now), rescued)
    except psycopg.Error as error:
        raise refused(error, deed.at, _after_triggers(plan)) from error
    for pair in pairs.values():
        if pair.now is None:
            sides.now.execute(sql.SQL("ANALYZE {}").format(pair.table))
    return rescued


def _write_all(
    sides: Sides,
    plan: RescuePlan,
    pairs: Mapping[TableName, Pair],
    definitions: Definitions,
    deed: _Deed,
    report: Report,
) -> tuple[dict[str, Written], dict[str, int], tuple[str, ...]]:
    now, required = sides.now, required_links(sides)
    writing = Writing(sides, plan, required)
    with deed.timed("definitions"):
        deed.at = "the tables' definitions"
        definitions.create(now)
    with deed.timed("stage"), report.phase("stage the rows", total=plan.rows, unit="rows") as phase:
        for pair in pairs.values():
            deed.at = str(pair.name)
            phase.advance(writing.stage(pair))
    for pair in pairs.values():
        require_missing(now, pair, PLAN_AGAIN)
        lock_changing(now, pair)
    now.execute("SET CONSTRAINTS ALL DEFERRED")
    counts: dict[str, tuple[int, int]] = {}
    with deed.timed("write"), report.phase("write the rows", total=plan.rows, unit="rows") as phase:
        for group in plan.order:
            deed.at = " and ".join(map(str, group))
            written = writing.write([pairs[name] for name in group])
            counts |= written
            phase.advance(sum(sum(count) for count in written.values()))
    with deed.timed("definitions"):
        deed.at = "the tables' constraints and indexes"
        # A table whose foreign keys wait for the commit cannot be altered.
        now.execute("SET CONSTRAINTS ALL IMMEDIATE")
        definitions.complete(now)
    deed.at = "the sequences"
    sequences = move_sequences(sides, list(pairs.values()))
    with deed.timed("check"), report.phase("compare with the past", total=len(pairs), unit="tables") as phase:
        deed.at = "the check"
        checked = check_rows(now, plan, pairs, counts, required, writing.stage_whole, phase)
    tables = {name: Written(*counts[name], altered.rows, altered.columns) for name, altered in checked.altered.items()}
    return tables, sequences, (*checked.words, *_words_of_made(plan, writing.made))


def _words_of_made(plan: RescuePlan, made: Mapping[str, int]) -> tuple[str, ...]:
    triggers = " and ".join(fire for table in plan.tables for fire in table.fires if "(after," in fire)
    return tuple(
        f"{rows:,} rows of {table} had been made by triggers of this transaction ({triggers}) and became what they were"
        for table, rows in made.items()
    )


def _written_pairs(sides: Sides, plan: RescuePlan) -> dict[TableName, Pair]:
    return {name: sides.pairs[name] for group in plan.order for name in group}


def _require_solved(plan: RescuePlan) -> None:
    require_clear(plan.barriers)
    if plan.unsolved:
        rows = sum(conflict.rows for conflict in plan.unsolved)
        raise RecoveryError(
            f"{rows:,} rows are in conflict with what is there now, and the policy {plan.selection.policy} has no "
            "answer to that.",
            hint="look at the conflicts, then choose --conflicts keep-current, take-past or skip",
        )


def _require_same_shape(sides: Sides, pairs: Mapping[TableName, Pair]) -> None:
    living = read_again(sides).living
    for name, pair in pairs.items():
        if living.tables.get(name) != pair.now:
            raise RecoveryError(f"The definition of {name} has changed since the plan.", hint=PLAN_AGAIN)


def _after_triggers(plan: RescuePlan) -> str:
    """Those that may make rows beside the ones that come back, in words."""
    return "; ".join(
        f"{fire} of {table.table}"
        for table in plan.tables
        if table.written
        for fire in table.fires
        if "(after," in fire
    )


def refused(error: psycopg.Error, at: str, triggers: str = "") -> RecoveryError:
    """The error of a transaction that the living server rolled back while it was at `at`.

    Args:
        triggers: those that may have made rows of their own, in words.
    """
    said = first_line(error)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return RecoveryError(
            f"Somebody has held a lock that {at} needs for {LOCK_TIMEOUT_S} s.",
            hint="see pg_stat_activity, and pg_prepared_xacts for what no session owns; then try again",
            transient=True,
        )
    if isinstance(error, psycopg.errors.UniqueViolation) and triggers:
        return RecoveryError(
            f"The living server refused {at}: {said}. Triggers that fire by this may have made that row: {triggers}.",
            detail=_ROLLED_BACK,
            hint=f"leave {at} out (--only), or have the trigger disabled by its owner for the while",
        )
    if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
        return RecoveryError(
            f"The living server refused {at}: {said}.", detail=_ROLLED_BACK, hint=PLAN_AGAIN, transient=True
        )
    return RecoveryError(f"The living server refused {at}: {said}.", detail=_ROLLED_BACK, hint=_advice(error, at))


def _advice(error: psycopg.Error, at: str) -> str:
    """What helps; comparing anew does only where something changed since."""
    if isinstance(error, psycopg.errors.UniqueViolation | psycopg.errors.ForeignKeyViolation):
        return PLAN_AGAIN
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"run this as the owner of {at}"
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.InsufficientResources):
        return "make room on the server, then run the same command again"
    if isinstance(error, psycopg.errors.OperationalError):
        return "see that the server is well (`tmi-ops doctor`), then run the same command again"
    return f"see what the server says of {at}; rows that it does not take can be left out with --where"
