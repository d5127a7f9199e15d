"""Which sessions block the backup, and which it blocks: a backup must not bring an application to a halt.

A backup locks every table in ACCESS SHARE mode, and its pg_dump does so again. An ALTER that arrives in between waits
for our lock, and pg_dump waits behind the ALTER: we wait for ourselves. The server sees no deadlock in that, and all
other sessions queue behind the ALTER. A watch detects it, so that the backup can give way.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings

LOOK_EVERY_S = 1.0
# How long our program may wait for a lock that a session holds for reasons of its own.
PATIENCE_S = 60.0
# Of a statement, show only the command and its object: values in it may be confidential.
_STATEMENT = re.compile(
    r'\s*((?:ALTER|CLUSTER|CREATE|DROP|LOCK|REFRESH|REINDEX|TRUNCATE|VACUUM)\b[\w ."]{0,60})', re.IGNORECASE
)

_HOLDERS = """
    SELECT DISTINCT a.pid, a.usename, a.application_name, a.query
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
      AND l.pid <> pg_catalog.pg_backend_pid()
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    LIMIT %s
"""
_WAITING = """
    SELECT b.pid, pg_catalog.pg_blocking_pids(b.pid), b.usename, b.application_name, b.query
    FROM pg_catalog.pg_stat_activity a
    CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocking (pid)
    JOIN pg_catalog.pg_stat_activity b ON b.pid = blocking.pid
    WHERE a.application_name = %s AND a.wait_event_type = 'Lock'
"""


@dataclass(frozen=True)
class InTheWay:
    """A session that our program waits for. `waits_for_us`: it waits in turn for the locks that the backup holds."""

    pid: int
    waits_for_us: bool
    described: str


def described(pid: int, user: str | None, application: str | None, statement: str | None) -> str:
    """A session's process, names and statement for a message, without values and control characters."""
    who = ", ".join(name for name in (user, application) if name) or "of the server"
    shown = "".join(character if character.isprintable() else "?" for character in who)
    doing = _STATEMENT.match(" ".join((statement or "").split()))
    return f"process {pid} ({shown}){f': {doing[1].strip()}' if doing else ''}"


Decision = Literal["go on", "give way", "give up"]


def decide(found: list[InTheWay], waited_s: float) -> Decision:
    """Give way to a session that also waits for us; give up if one blocks us for too long for other reasons."""
    if any(session.waits_for_us for session in found):
        return "give way"
    return "give up" if found and waited_s > PATIENCE_S else "go on"


def holders_of_tables(connection: psycopg.Connection[Any], limit: int = 3) -> list[str]:
    """Sessions that now hold tables of the connected database exclusively, each described."""
    return [described(*row) for row in connection.execute(_HOLDERS, (limit,)).fetchall()]


class LockQueueWatch:
    """What the watch has seen so far. Any thread may read it."""

    def __init__(self) -> None:
        self.decision: Decision = "go on"
        self.in_the_way: tuple[InTheWay, ...] = ()
        self._waiting_since: float | None = None

    @property
    def described(self) -> str:
        return "; ".join(session.described for session in self.in_the_way) or "a session that has ended"

    def take(self, found: list[InTheWay], now: float) -> Decision:
        """Record one reading of the server."""
        if not found:
            self._waiting_since = None
            return "go on"
        self._waiting_since = self._waiting_since or now
        decision = decide(found, now - self._waiting_since)
        if decision != "go on":
            self.in_the_way = tuple(found)
            self.decision = decision
        return decision


@contextmanager
def watched_locks(
    postgres: PostgresSettings, holder: int, application_name: str, stop: Callable[[], None]
) -> Iterator[LockQueueWatch]:
    """Watch the lock queue for the length of a `with` block, over a connection of its own.

    Args:
        holder: the process that holds the backup's locks.
        application_name: of the programs that work for the backup.
        stop: called once, from another thread, if the backup must end; the watch then holds the reason.
    """
    watch = LockQueueWatch()
    ended = threading.Event()

    def look() -> None:
        try:
            with connect(postgres) as connection:
                while not ended.wait(LOOK_EVERY_S):
                    rows = connection.execute(_WAITING, (application_name,)).fetchall()
                    found = [
                        InTheWay(pid, holder in blocked_by, described(pid, *who)) for pid, blocked_by, *who in rows
                    ]
                    if watch.take(found, time.monotonic()) != "go on":
                        stop()
                        return
        except OpsError:
            return  # without a watch, the dump still ends by its own --lock-wait-timeout

    thread = threading.Thread(target=look, name="lock-queue", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
