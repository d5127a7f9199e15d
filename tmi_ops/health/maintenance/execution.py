"""Runs the steps of a plan within its limits. A step that cannot be run is skipped; the others go on.

A session is ended safely: only the one that was seen, in the state it was seen in, and never a protected one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString

import psycopg

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, OpsError, first_line
from tmi_ops.health.maintenance.limits import Limits
from tmi_ops.health.maintenance.steps import Analyze, DropLeftover, EndSession, LeftOut, Plan, Rebuild, Step, Vacuum
from tmi_ops.health.probes.sessions import OURS
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.versions import MAINTAIN
from tmi_ops.progress import Report
from tmi_ops.schema.locking import MIGRATION_LOCK
from tmi_ops.settings import PostgresSettings
from tmi_ops.text import format_duration

_POLL_S = 0.05

# One statement looks and signals, so that the pid cannot pass to another session, or the session to a new transaction.
_SAME = """
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s AND a.xact_start IS NOT DISTINCT FROM %(xact_start)s
  AND a.backend_type = 'client backend' AND NOT r.rolsuper AND NOT r.rolreplication
  AND a.pid <> pg_backend_pid() AND a.application_name <> %(ours)s
  AND CASE WHEN %(idle)s THEN a.state LIKE 'idle in transaction%%'
           ELSE a.state IN ('active', 'fastpath function call') END
"""
_CANCEL: LiteralString = "SELECT pg_cancel_backend(a.pid)" + _SAME
_TERMINATE: LiteralString = "SELECT pg_terminate_backend(a.pid)" + _SAME
_STILL: LiteralString = "SELECT true" + _SAME


def end_session(connection: psycopg.Connection[Any], step: EndSession, limits: Limits) -> str | None:
    """Cancel the query; if it does not end within the grace period, or none is running, end the session.

    Returns:
        What was done; None if the session had moved on, so that nothing was done.

    Raises:
        psycopg.errors.InsufficientPrivilege: the role may not signal that session.
        TimeoutError: the session is still there after both.
    """
    if not step.idle:
        if not _ask(connection, _CANCEL, step):
            return None
        if _gone(connection, step, limits.grace_s):
            return "cancelled its query"
    if not _ask(connection, _TERMINATE, step):
        return None if step.idle else "cancelled its query"
    if not _gone(connection, step, limits.grace_s):
        raise TimeoutError("the server accepted the signal, but the session still exists")
    return "ended the session; its open transaction was rolled back"


def _gone(connection: psycopg.Connection[Any], step: EndSession, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while _ask(connection, _STILL, step):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _ask(connection: psycopg.Connection[Any], query: LiteralString, step: EndSession) -> bool:
    parameters = {
        "pid": step.pid,
        "backend_start": step.backend_start,
        "xact_start": step.xact_start,
        "idle": step.idle,
        "ours": OURS,
    }
    return connection.execute(query, parameters).fetchone() is not None


Maintained = Vacuum | Analyze | DropLeftover | Rebuild
Outcome = Literal["done", "left out", "failed"]

# The first eight bytes of SHA-256 of "tmi_ops.health.maintenance", so that no other program uses it by chance.
MAINTENANCE_LOCK = int.from_bytes(bytes.fromhex("071b7ad255923816"), "big")

_MAY_SIGNAL = """
SELECT pg_has_role('pg_signal_backend', 'USAGE')
       OR EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND pg_has_role(usesysid, 'USAGE'))
"""
_MAY_MAINTAIN = "SELECT has_table_privilege(%s::regclass, 'MAINTAIN')"
_IS_OWNER = """
SELECT pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')
FROM pg_class c, pg_database d WHERE c.oid = %s::regclass AND d.datname = current_database()
"""
_INDEX_STATE = """
SELECT i.indisvalid,
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid) AS being_built
FROM pg_index i WHERE i.indexrelid = to_regclass(%s)
"""
_LEFTOVERS = """
SELECT c.oid::regclass::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_index o ON o.indexrelid = to_regclass(%s) AND o.indrelid = i.indrelid AND o.indexrelid <> i.indexrelid
JOIN pg_class oc ON oc.oid = o.indexrelid
WHERE NOT i.indisvalid AND regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '') = oc.relname
"""
_MIGRATION_RUNS = """
SELECT FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


@dataclass(frozen=True)
class Taken:
    """The result of a step. `note`: what was done, or why not and what to do."""

    step: Step
    outcome: Outcome
    note: str
    seconds: float


class _LeaveOut(Exception):
    """The step must be skipped; the message says why."""


def within_rights(postgres: PostgresSettings, plan: Plan) -> Plan:
    """The plan without the steps the role may not run: the server would skip such a table with only a warning.

    Raises:
        DatabaseError: the server could not be reached.
    """
    left_out, steps = list(plan.left_out), []
    with connect(postgres) as connection:
        for step in plan.steps:
            if isinstance(step, EndSession):
                may = _value(connection, _MAY_SIGNAL, step.pid)
                lacks = "" if may else f"{postgres.user} is not a member of pg_signal_backend"
            else:
                lacks = "" if _may_maintain(connection, step) else f"{postgres.user} does not own {step.table}"
            if lacks:
                left_out.append(LeftOut(step.subject, f"{step.reason}, but {lacks}"))
            else:
                steps.append(step)
    return Plan(tuple(steps), tuple(left_out))


def execute(postgres: PostgresSettings, plan: Plan, limits: Limits, report: Report) -> tuple[Taken, ...]:
    """Run the steps one after another, each committed by itself.

    No step begins after the window has closed or `max_duration_s` has passed; the step that is running then is
    cancelled and cleaned up.

    Raises:
        OpsError: the maintenance window is closed.
        DatabaseError: the server could not be reached, is a standby, or runs another maintenance; or the connection was
            lost, and the steps before remain done.
    """
    deadline = time.monotonic() + _time_allowed(limits)
    if plan.empty:
        return ()
    taken: list[Taken] = []
    with (
        connect(postgres) as connection,
        _alone(connection, postgres),
        report.phase("maintain", total=len(plan.steps), unit="steps") as phase,
    ):
        for step in plan.steps:
            one = _take(connection, step, limits, deadline)
            report.note(f"{one.outcome}: {step.sql} {one.note}".rstrip())
            taken.append(one)
            phase.advance(1)
    return tuple(taken)


def _time_allowed(limits: Limits) -> float:
    if limits.window is None:
        return limits.max_duration_s
    remaining = limits.window.remaining(datetime.now(UTC))
    if remaining is None:
        raise OpsError(
            f"The maintenance window ({limits.window.describe()}) is closed.",
            hint="wait for it, or set another with --window; `tmi-ops maintain --dry-run` works at any time",
            code=Code.WINDOW_CLOSED,
        )
    return min(limits.max_duration_s, remaining.total_seconds())


@contextlib.contextmanager
def _alone(connection: psycopg.Connection[Any], postgres: PostgresSettings) -> Iterator[None]:
    """Hold maintenance's advisory lock, so that two runs do not do the same work.

    Raises:
        DatabaseError: the server is a standby, or another run holds the lock.
    """
    if _value(connection, "SELECT pg_is_in_recovery()"):
        raise DatabaseError(
            f"{postgres.describe()} is a standby, and standbys are read-only.",
            hint="set POSTGRES_HOST to the primary; the standbys replay its maintenance",
            code=Code.STANDBY,
        )
    if not _value(connection, "SELECT pg_try_advisory_lock(%s)", MAINTENANCE_LOCK):
        raise DatabaseError(
            f"Another maintenance run is working on {postgres.describe()}.",
            hint="wait until it is done: SELECT * FROM pg_stat_activity WHERE application_name = 'tmi_ops'",
            code=Code.MAINTENANCE_RUNNING,
            transient=True,
        )
    yield  # the lock goes with the connection


def _take(connection: psycopg.Connection[Any], step: Step, limits: Limits, deadline: float) -> Taken:
    started = time.monotonic()

    def taken(outcome: Outcome, note: str) -> Taken:
        return Taken(step, outcome, note, time.monotonic() - started)

    if started >= deadline:
        return taken("left out", "the time limit of the run was reached")
    try:
        _limit(connection, step, limits, deadline - started)
        if isinstance(step, EndSession):
            done = end_session(connection, step, limits)
            return taken("done", done) if done else taken("left out", "the session had already moved on")
        _look_again(connection, step)
        connection.execute(step.sql.encode())
    except KeyboardInterrupt:
        with contextlib.suppress(psycopg.Error):
            _clear_away(connection, step, limits)
        raise
    except _LeaveOut as reason:
        return taken("left out", str(reason))
    except psycopg.errors.LockNotAvailable:
        return taken("left out", f"its lock was not granted in time.{_clear_away(connection, step, limits)}")
    except psycopg.errors.QueryCanceled:
        return taken("left out", f"cancelled at the run's time limit.{_clear_away(connection, step, limits)}")
    except psycopg.errors.InsufficientPrivilege as error:
        right = "pg_signal_backend" if isinstance(step, EndSession) else "the privileges of the table's owner"
        return taken("failed", f"{_first_line(error)}: it needs {right}")
    except TimeoutError as error:
        return taken("failed", str(error))
    except psycopg.Error as error:
        if connection.closed:
            raise
        return taken("failed", f"{_first_line(error)}.{_clear_away(connection, step, limits)}")
    return taken("done", f"in {format_duration(time.monotonic() - started)}")


def _limit(connection: psycopg.Connection[Any], step: Step, limits: Limits, remaining_s: float) -> None:
    wait_s = limits.concurrent_wait_s if isinstance(step, DropLeftover | Rebuild) else limits.lock_timeout_s
    connection.execute(
        "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)",
        (f"{max(1, remaining_s * 1000):.0f}ms", f"{wait_s * 1000:.0f}ms"),
    )


def _look_again(connection: psycopg.Connection[Any], step: Maintained) -> None:
    """Check that the step still fits the state of the database.

    Raises:
        _LeaveOut: it does not, or the role may not run it.
    """
    if not _may_maintain(connection, step):
        raise _LeaveOut(f"{connection.info.user} does not own {step.table}, so the server would skip it")
    if isinstance(step, DropLeftover | Rebuild):
        if connection.execute(_MIGRATION_RUNS, (MIGRATION_LOCK,)).fetchone() is not None:
            raise _LeaveOut("a migration is running")
        state = connection.execute(_INDEX_STATE, (step.index,)).fetchone()
        if state is None:
            raise _LeaveOut("the index no longer exists")
        valid, being_built = state
        if being_built:
            raise _LeaveOut(f"an index of {step.table} is being built")
        if isinstance(step, DropLeftover) and (valid or not _is_valid(connection, step.original)):
            raise _LeaveOut(f"the index is valid now, or {step.original} no longer is")


def _may_maintain(connection: psycopg.Connection[Any], step: Maintained) -> bool:
    """Without the privilege, VACUUM and ANALYZE skip a table with only a warning."""
    newer = connection.info.server_version // 10000 >= MAINTAIN
    owner = connection.execute(_IS_OWNER, (step.table,)).fetchone()
    if owner is not None and owner[0]:
        return True
    return newer and bool(_value(connection, _MAY_MAINTAIN, step.table))


def _is_valid(connection: psycopg.Connection[Any], index: str) -> bool:
    state = connection.execute(_INDEX_STATE, (index,)).fetchone()
    return state is not None and bool(state[0])


def _clear_away(connection: psycopg.Connection[Any], step: Step, limits: Limits) -> str:
    """Drop the invalid index that an unfinished rebuild leaves beside the original.

    The drop waits for the same transactions as the rebuild did, so it may not succeed yet.
    """
    if not isinstance(step, Rebuild):
        return ""
    left = [row[0] for row in connection.execute(_LEFTOVERS, (step.index,)).fetchall()]
    connection.execute(
        "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', %s, false)",
        (f"{limits.lock_timeout_s * 1000:.0f}ms",),
    )
    for index in left:
        try:
            connection.execute(f"DROP INDEX CONCURRENTLY {index}".encode())
        except psycopg.Error:
            return f" {index} remains: no query uses it, and the next run drops it."
    return " The unfinished index was dropped." if left else ""


def _value(connection: psycopg.Connection[Any], query: Any, *parameters: Any) -> Any:
    row = connection.execute(query, parameters or None).fetchone()
    return row[0] if row else None


def _first_line(error: psycopg.Error) -> str:
    return first_line(error).rstrip(".")
