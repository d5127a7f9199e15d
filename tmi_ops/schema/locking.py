"""Locks of a migration: one migration at a time, short waits with retries, and the sessions that block it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.rows import TupleRow

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.advisory_locks import is_locked, lock_holder
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings

Session = psycopg.Connection[TupleRow]
T = TypeVar("T")

# The first eight bytes of SHA-256 of "tmi_ops.schema.migration", so that no other program uses it by chance.
MIGRATION_LOCK = int.from_bytes(bytes.fromhex("5ea5739cae876580"), "big")
_POLL_S = 0.5
_SETTLED_POLL_S = 5.0


@dataclass(frozen=True)
class Patience:
    """How long a migration waits.

    While an ALTER TABLE waits for its lock, all later requests wait behind it; so it waits briefly and tries again
    (`lock_timeout_s`, `attempts`). CREATE INDEX CONCURRENTLY and VALIDATE block nobody while they wait, so they may
    wait long (`harmless_lock_timeout_s`). The pause between attempts starts at `first_pause_s` and doubles up to
    `longest_pause_s`: with the defaults, a step gives up after about a minute.
    """

    lock_timeout_s: float = 2.0
    attempts: int = 8
    harmless_lock_timeout_s: float = 300.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 15.0
    other_migration_s: float = 3600.0

    def pause(self, attempt: int) -> float:
        """Seconds before the attempt after `attempt` (from 1), randomized so that two waiters do not stay in step."""
        pause = min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311


@dataclass(frozen=True)
class Observed(Generic[T]):
    """What was read of the schema. `during_migration`: a migration was changing it, so this may be half of a change."""

    found: T
    during_migration: bool


def observe(postgres: PostgresSettings, read: Callable[[], T]) -> Observed[T]:
    """Read the schema, and whether a migration was running just before or just after.

    Raises:
        DatabaseError: PostgreSQL could not be reached, or what `read` raises.
    """
    before = _migration_is_running(postgres)
    found = read()
    return Observed(found, before or _migration_is_running(postgres))


def observe_settled(postgres: PostgresSettings, read: Callable[[], T], patience_s: float = 1800.0) -> T:
    """Read the schema once no migration is running.

    Raises:
        DatabaseError: one was running for all this time, PostgreSQL could not be reached, or what `read` raises.
    """
    deadline = time.monotonic() + patience_s
    observed = observe(postgres, read)
    while observed.during_migration and time.monotonic() < deadline:
        time.sleep(_SETTLED_POLL_S)
        observed = observe(postgres, read)
    if observed.during_migration:
        raise DatabaseError(
            "A migration is changing the schema, so it cannot be judged now.",
            hint="repeat this when the migration has ended",
            code=Code.MIGRATION_RUNNING,
            transient=True,
        )
    return observed.found


def _migration_is_running(postgres: PostgresSettings) -> bool:
    with connect(postgres) as connection:
        return is_locked(connection, MIGRATION_LOCK)


@contextmanager
def only_migration(session: Session, patience: Patience, report: Report) -> Iterator[None]:
    """Hold this database's advisory lock for the block; wait for a migration that is already running.

    It polls instead of waiting in the server: a session that waits there holds a snapshot, and the other migration's
    CREATE INDEX CONCURRENTLY waits for all older snapshots to end; the two would deadlock.

    Raises:
        DatabaseError: the other migration did not end in time.
    """
    deadline = time.monotonic() + patience.other_migration_s
    noted = False
    holder = partial(lock_holder, session, MIGRATION_LOCK)
    while not _value(session, "SELECT pg_try_advisory_lock(%s)", MIGRATION_LOCK):
        if not noted:
            report.note(f"Waiting for another migration of this database ({holder()}).")
            noted = True
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"Another migration has been running for {patience.other_migration_s:.0f} s: {holder()}.",
                hint="check it in pg_stat_activity; end it or wait, then run `tmi-ops migrate` again",
                code=Code.MIGRATION_RUNNING,
                transient=True,
            )
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if not session.closed and not session.broken:
            session.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


def holders(session: Session, tables: tuple[str, ...], *, any_transaction: bool = False) -> str:
    """The sessions that block, the longest transaction first; without their queries, which may hold secrets.

    Args:
        tables: the tables to lock.
        any_transaction: list every open transaction; CREATE INDEX CONCURRENTLY also waits for those of other tables.
    """
    rows = session.execute(
        """
        SELECT DISTINCT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'unnamed'), a.state,
               extract(epoch FROM now() - a.xact_start)::int AS seconds
        FROM pg_locks l
        JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
        WHERE l.granted AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
          AND (%s OR l.relation IN (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name))
        ORDER BY seconds DESC NULLS LAST LIMIT 3
        """,
        (any_transaction, list(tables)),
    ).fetchall()
    if not rows:
        return "a session that has ended since"
    return "; ".join(
        f"pid {pid} ({user}, {application}, {state}, transaction open for {seconds} s)"
        for pid, user, application, state, seconds in rows
    )


def _value(session: Session, query: str, *parameters: Any) -> Any:
    row = session.execute(query.encode(), parameters).fetchone()
    return row[0] if row else None
