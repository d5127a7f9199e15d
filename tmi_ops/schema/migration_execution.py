"""Runs the steps of a plan: with short lock waits and retries, and without leftovers of a failed step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.progress import Report
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.locking import Patience, Session, holders
from tmi_ops.schema.operations import (
    AddPrimaryKey,
    BuildIndex,
    CreateDatabase,
    CreateTable,
    MigrationPlan,
    Operation,
    RequireValue,
    ValidateConstraint,
)
from tmi_ops.schema.rendering import Batch, Step, render

# These waits block nobody and are long already; one more attempt covers a deadlock.
HARMLESS_ATTEMPTS = 2
_WORTH_RETRYING = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
# Rows written while the migration ran; the constraint or column stays as it was and is reported with counts.
_ROWS_IN_THE_WAY = {
    ValidateConstraint: (psycopg.errors.CheckViolation, psycopg.errors.ForeignKeyViolation),
    RequireValue: (psycopg.errors.CheckViolation,),
    BuildIndex: (psycopg.errors.UniqueViolation,),
    AddPrimaryKey: (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation),
}
_RERUN = "then run `tmi-ops migrate` again: it continues where this one stopped"


def execute(session: Session, plan: MigrationPlan, report: Report, patience: Patience) -> tuple[Operation, ...]:
    """Run every step in order, each committed by itself.

    Args:
        session: an autocommit connection to the database the plan is for.

    Returns:
        The steps that were done. Steps that existing rows violate are skipped, with a note to `report`.

    Raises:
        DatabaseError: a step failed; the steps before it remain done, and the failed one leaves nothing behind.
    """
    done: list[Operation] = []
    if plan.empty:
        return ()
    # A role's own statement_timeout would cut a long index build short.
    session.execute("SET statement_timeout = 0")
    with report.phase("migrate", total=len(plan.operations), unit="steps") as phase:
        for operation in plan.operations:
            step = render(operation)
            try:
                for batch in step.batches:
                    _run(session, batch, operation, report, patience)
            except _ROWS_IN_THE_WAY.get(type(operation), ()) as error:
                _clear_away(session, operation)
                report.note(f"Skipped, because existing rows violate it: {step.summary} ({_first_line(error)}).")
            except psycopg.Error as error:
                raise _failed(session, error, step, operation, len(done), len(plan.operations)) from error
            else:
                done.append(operation)
            phase.advance(1)
    return tuple(done)


def _run(session: Session, batch: Batch, operation: Operation, report: Report, patience: Patience) -> None:
    attempt, attempts = 1, HARMLESS_ATTEMPTS if batch.harmless else patience.attempts
    while True:
        try:
            with _no_leftover(session, batch):
                _run_once(session, batch, patience)
        except _WORTH_RETRYING as error:
            if attempt >= attempts:
                raise
            pause = patience.pause(attempt)
            report.note(
                f"{render(operation).summary}: {_first_line(error)}; blocked by "
                f"{holders(session, tables_of(operation), any_transaction=batch.alone)}; "
                f"attempt {attempt + 1} of {attempts} in {pause:.1f} s."
            )
            time.sleep(pause)
            attempt += 1
        else:
            return


def _run_once(session: Session, batch: Batch, patience: Patience) -> None:
    seconds = patience.harmless_lock_timeout_s if batch.harmless else patience.lock_timeout_s
    session.execute("SELECT set_config('lock_timeout', %s, false)", (f"{seconds * 1000:.0f}ms",))
    if batch.alone:
        _drop_invalid(session, batch.builds_index)  # an earlier attempt may not have cleaned up
        session.execute(batch.statements[0].encode())
        return
    with session.transaction():
        for statement in batch.statements:
            session.execute(statement.encode())


@contextlib.contextmanager
def _no_leftover(session: Session, batch: Batch) -> Iterator[None]:
    """Drop the invalid index left by a failed or interrupted CREATE INDEX CONCURRENTLY."""
    try:
        yield
    except BaseException:
        # The cause of the failure matters more than the cleanup, which the next run does, too.
        with contextlib.suppress(psycopg.Error):
            _drop_invalid(session, batch.builds_index)
        raise


def _drop_invalid(session: Session, index: str | None) -> None:
    if index is not None and _is_invalid(session, index):
        session.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {quote(index)}".encode())


def _is_invalid(session: Session, index: str) -> bool:
    if session.closed or session.broken:
        return False
    query = "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid"
    return session.execute(query, (quote(index),)).fetchone() is not None


def _clear_away(session: Session, operation: Operation) -> None:
    """Drop the CHECK of a NOT NULL that could not be set, so that it does not refuse rows."""
    if isinstance(operation, RequireValue):
        check = quote(f"tmi_ops_not_null_{operation.column}")
        session.execute(f"ALTER TABLE {quote(operation.table)} DROP CONSTRAINT IF EXISTS {check}".encode())


def tables_of(operation: Operation) -> tuple[str, ...]:
    """The existing tables that an operation locks."""
    if isinstance(operation, CreateDatabase):
        return ()
    if isinstance(operation, CreateTable):
        return operation.locks
    referenced = getattr(operation, "referenced", None)
    return (operation.table, referenced) if referenced else (operation.table,)


def _what_is_left(session: Session, step: Step) -> str:
    """The cleanup waits for the same transactions as the build did, so it may have failed."""
    built = next((batch.builds_index for batch in step.batches if batch.builds_index), None)
    if built and _is_invalid(session, built):
        return f"the unfinished index {built} remains: no query uses it, and the next run replaces it"
    return "the failed step left nothing behind"


def _failed(
    session: Session, error: psycopg.Error, step: Step, operation: Operation, done: int, total: int
) -> DatabaseError:
    kept = f"{done} of {total} steps remain done; {_what_is_left(session, step)}."
    number = f"Step {done + 1} of {total}"
    if isinstance(error, _WORTH_RETRYING):
        blockers = holders(session, tables_of(operation), any_transaction=not tables_of(operation))
        return DatabaseError(
            f"{number} ({step.summary}) could not get its lock; blocked by {blockers}.",
            detail=kept,
            hint=f"wait for that transaction or end it with SELECT pg_terminate_backend(<pid>), {_RERUN}",
            code=Code.MIGRATION_BLOCKED,
            transient=True,
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseError(
            f"{number} ({step.summary}) is not allowed: {_first_line(error)}.",
            detail=kept,
            hint="set POSTGRES_USER to the owner of the tables (or a superuser), or have an administrator run "
            f"`GRANT CREATE, USAGE ON SCHEMA public TO {session.info.user}`, {_RERUN}",
            code=Code.MIGRATION_RIGHTS,
        )
    if session.broken or session.closed:
        return DatabaseError(
            f"The connection was lost during step {done + 1} of {total} ({step.summary}): {_first_line(error)}.",
            detail=f"{done} of {total} steps remain done; the server completes or rolls back the running step.",
            hint="check that the server is running, then run `tmi-ops migrate` again: it cleans up and continues",
            transient=True,
        )
    return DatabaseError(
        f"{number} ({step.summary}) failed: {_first_line(error)}.",
        detail=kept,
        hint=f"fix the cause, {_RERUN}",
        code=Code.MIGRATION_FAILED,
    )


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
