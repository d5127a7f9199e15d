"""The deed: the planned rows are put in place in one transaction, compared with the past, and only then committed.

1. Stage the rows, before anything is locked. 2. Lock the rows that will change and see that they are what the plan saw.
3. Write table by table, parents first; a circle of tables is written by one statement, at whose end PostgreSQL checks
foreign keys. 4. Move sequences on, read everything again, commit.

Others may go on writing all the while; whatever they did in between makes the rescue stop, not go wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.transactions import current_transaction
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import require_clear
from tmi_ops.rescue.checks import check_rows
from tmi_ops.rescue.definitions import Definitions, lost_definitions
from tmi_ops.rescue.exchange import step_aside
from tmi_ops.rescue.made import become_updates, require_missing
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.planning import RescuePlan, planned_digest, required_links
from tmi_ops.rescue.sequences import move_sequences
from tmi_ops.rescue.session import Sides, read_again
from tmi_ops.rescue.staging import place_of, places, stage, staged
from tmi_ops.rescue.values_only import with_values_only

LOCK_TIMEOUT_S = 10
_PLAN_AGAIN = "plan it again: the same command compares anew"
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
        raise RecoveryError("This plan was made on another comparison.", next_step=_PLAN_AGAIN)
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
    now = sides.now
    with deed.timed("definitions"):
        deed.at = "the tables' definitions"
        definitions.create(now)
    with deed.timed("stage"), report.phase("stage the rows", total=plan.rows, unit="rows") as phase:
        for pair in pairs.values():
            deed.at = str(pair.name)
            phase.advance(stage(sides.past, now, pair))
    for pair in pairs.values():
        require_missing(now, pair, _PLAN_AGAIN)
        _lock_changing(now, pair)
    now.execute("SET CONSTRAINTS ALL DEFERRED")
    counts: dict[str, tuple[int, int]] = {}
    made: dict[str, int] = {}
    with deed.timed("write"), report.phase("write the rows", total=plan.rows, unit="rows") as phase:
        for group in plan.order:
            deed.at = " and ".join(map(str, group))
            members = [pairs[name] for name in group]
            made |= {str(pair.name): rows for pair in members if (rows := become_updates(now, pair))}
            written = _write_group(sides, members)
            counts |= {name: _as_planned(written[name], made.get(name, 0)) for name in written}
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
        checked = check_rows(now, plan, pairs, counts, required_links(sides), phase)
    tables = {name: Written(*counts[name], altered.rows, altered.columns) for name, altered in checked.altered.items()}
    return tables, sequences, (*checked.words, *_words_of_made(plan, made))


def _as_planned(written: tuple[int, int], made: int) -> tuple[int, int]:
    """What triggers had made counts as inserted: that is what was planned. A row of nothing but its key was not set."""
    inserted, updated = written
    return inserted + made, max(0, updated - made)


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
            next_step="look at the conflicts, then choose --conflicts keep-current, take-past or skip",
        )


def _require_same_shape(sides: Sides, pairs: Mapping[TableName, Pair]) -> None:
    living = read_again(sides).living
    for name, pair in pairs.items():
        if living.tables.get(name) != pair.now:
            raise RecoveryError(f"The definition of {name} has changed since the plan.", next_step=_PLAN_AGAIN)


def _lock_changing(now: psycopg.Connection[Any], pair: Pair) -> None:
    """Lock the rows that will be updated, and see that each is what the plan saw."""
    if not pair.key or pair.now is None:
        return
    key = [place_of(pair, name) for name in pair.key]
    row = now.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {own} WHERE action = 'update'), count(*) FILTER (WHERE seen = planned) "
            "FROM (SELECT {digest} AS seen, s.now_digest AS planned FROM {stage} s JOIN ONLY {table} l ON {same} "
            "WHERE s.action = 'update' FOR UPDATE OF l) locked"
        ).format(
            own=pair.temporary("stage"),
            stage=staged(pair),
            digest=pair.digest("l"),
            table=pair.table,
            same=equal("l", pair.key, "s", key),
        )
    ).fetchone()
    if row is None or row[0] != row[1]:
        raise RecoveryError(
            f"Rows of {pair.name} that were to be changed back have changed since the plan.", next_step=_PLAN_AGAIN
        )


def _write_group(sides: Sides, group: Sequence[Pair]) -> dict[str, tuple[int, int]]:
    """Write tables that refer to one another in a circle, or one alone. Returns (inserted, updated) by table."""
    now = sides.now
    names = {pair.name for pair in group}
    circular = any(link.child in names and names & set(link.parents) for link in required_links(sides))
    statements = [(pair, kind, _statement(pair, kind)) for kind in ("update", "insert") for pair in group]
    statements = [one for one in statements if one[2] is not None]
    # Triggers and defaults see the search path that the application has.
    now.execute("SET LOCAL search_path TO DEFAULT")
    for pair in group:
        step_aside(now, pair, sides.links, circular=circular)
    if circular:
        counts = _in_one_statement(now, [statement for _, _, statement in statements])
    else:
        counts = [count for _, _, statement in statements for count in _in_one_statement(now, [statement])]
    now.execute("SET LOCAL search_path TO pg_catalog")
    found = {(pair.name, kind): count for (pair, kind, _), count in zip(statements, counts, strict=True)}
    return {
        str(pair.name): (found.get((pair.name, "insert"), 0), found.get((pair.name, "update"), 0)) for pair in group
    }


def _in_one_statement(now: psycopg.Connection[Any], statements: Sequence[sql.Composable | None]) -> list[int]:
    names = [sql.Identifier(f"w{number}") for number in range(len(statements))]
    parts = sql.SQL(", ").join(
        sql.SQL("{} AS ({})").format(name, statement) for name, statement in zip(names, statements, strict=True)
    )
    counts = sql.SQL(", ").join(sql.SQL("(SELECT count(*) FROM {})").format(name) for name in names)
    row = now.execute(sql.SQL("WITH {} SELECT {}").format(parts, counts)).fetchone()
    return [int(count) for count in row or ()]


def _statement(pair: Pair, kind: str) -> sql.Composable | None:
    """What inserts or updates the staged rows; None where it could have nothing to set."""
    if kind == "insert":
        return sql.SQL(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {stage} g "
            "WHERE action = 'insert' RETURNING 1"
        ).format(
            table=pair.table,
            columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in pair.columns),
            values=sql.SQL(", ").join(map(sql.Identifier, places(pair))),
            stage=staged(pair),
        )
    settable = [column.name for column in pair.columns if column.name not in pair.key and column.identity != "a"]
    if not pair.key or not settable:
        return None
    return sql.SQL(
        "UPDATE ONLY {table} AS l SET {values} FROM {stage} s WHERE s.action = 'update' AND {same} RETURNING 1"
    ).format(
        table=pair.table,
        values=sql.SQL(", ").join(
            sql.SQL("{} = s.{}").format(sql.Identifier(name), sql.Identifier(place_of(pair, name))) for name in settable
        ),
        stage=staged(pair),
        same=equal("l", pair.key, "s", [place_of(pair, name) for name in pair.key]),
    )


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
            next_step="see pg_stat_activity, and pg_prepared_xacts for what no session owns; then try again",
            transient=True,
        )
    if isinstance(error, psycopg.errors.UniqueViolation) and triggers:
        return RecoveryError(
            f"The living server refused {at}: {said}. Triggers that fire by this may have made that row: {triggers}.",
            kept=_ROLLED_BACK,
            next_step=f"leave {at} out (--only), or have the trigger disabled by its owner for the while",
        )
    if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
        return RecoveryError(
            f"The living server refused {at}: {said}.", kept=_ROLLED_BACK, next_step=_PLAN_AGAIN, transient=True
        )
    return RecoveryError(f"The living server refused {at}: {said}.", kept=_ROLLED_BACK, next_step=_advice(error, at))


def _advice(error: psycopg.Error, at: str) -> str:
    """What helps; comparing anew does only where something changed since."""
    if isinstance(error, psycopg.errors.UniqueViolation | psycopg.errors.ForeignKeyViolation):
        return _PLAN_AGAIN
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"run this as the owner of {at}"
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.InsufficientResources):
        return "make room on the server, then run the same command again"
    if isinstance(error, psycopg.errors.OperationalError):
        return "see that the server is well (`tmi-ops doctor`), then run the same command again"
    return f"see what the server says of {at}; rows that it does not take can be left out with --where"
