"""Connections by state, long-running queries, and sessions idle in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, query_shape
from tmi_ops.health.probe import READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from datetime import datetime

    from tmi_ops.health.session import ProbeSession

# Our own dumps and their snapshots last as long as the backup.
OURS = "tmi_ops"
_SHOWN = 20

_LIMITS = """
SELECT current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved
"""
_CONNECTIONS = """
SELECT quote_ident(usename) AS role, coalesce(nullif(application_name, ''), '(unnamed)') AS application,
       coalesce(state, 'unknown') AS state, count(*)::int AS connections
FROM pg_stat_activity
WHERE backend_type = 'client backend'
GROUP BY 1, 2, 3 ORDER BY connections DESC, 1, 2, 3
"""
_BUSY = """
SELECT pid, backend_start, xact_start, quote_ident(usename) AS role, application_name AS application,
       coalesce(host(client_addr), 'local') AS address, datname::text AS database, state,
       EXISTS (SELECT FROM pg_roles r WHERE r.oid = usesysid AND (r.rolsuper OR r.rolreplication)) AS privileged,
       extract(epoch FROM clock_timestamp() - query_start)::float8 AS seconds, query
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state IN ('active', 'fastpath function call') AND pid <> pg_backend_pid()
ORDER BY query_start LIMIT %s
"""
_IDLE_IN_TRANSACTION = """
SELECT pid, backend_start, xact_start, quote_ident(usename) AS role, application_name AS application,
       coalesce(host(client_addr), 'local') AS address, datname::text AS database, state,
       EXISTS (SELECT FROM pg_roles r WHERE r.oid = usesysid AND (r.rolsuper OR r.rolreplication)) AS privileged,
       extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds, query
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state LIKE 'idle in transaction%%'
ORDER BY state_change LIMIT %s
"""


@dataclass(frozen=True)
class ConnectionGroup:
    """Connections of one role by one application in one state."""

    role: str
    application: str
    state: str
    connections: int


@dataclass(frozen=True)
class Connections(Reading):
    """Client connections. `usable`: what max_connections leaves to ordinary roles."""

    groups: tuple[ConnectionGroup, ...]
    max_connections: int
    usable: int

    @property
    def used(self) -> int:
        return sum(group.connections for group in self.groups)

    @property
    def percent(self) -> float:
        return 100 * self.used / self.usable

    def by_state(self) -> dict[str, int]:
        states: dict[str, int] = {}
        for group in self.groups:
            states[group.state] = states.get(group.state, 0) + group.connections
        return states

    def numbers(self) -> Mapping[str, float]:
        return {
            "connections": self.used,
            "connections used (%)": self.percent,
            **{f"connections {state}": count for state, count in self.by_state().items()},
        }

    def rows(self) -> Sequence[Row]:
        return [as_row(group) for group in self.groups[:_SHOWN]]


@dataclass(frozen=True)
class Session:
    """A client's session, and how long it has been in its state. `query` is without its literals.

    `privileged`: its role is a superuser or has REPLICATION.
    """

    pid: int
    backend_start: datetime
    xact_start: datetime | None
    role: str
    application: str
    address: str
    database: str
    state: str
    privileged: bool
    seconds: float
    query: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "query", query_shape(self.query))

    @property
    def ours(self) -> bool:
        return self.application == OURS

    def describe(self) -> str:
        """Its pid, role, application and address, for a line of text."""
        return f"pid {self.pid} ({self.role}, {self.application or 'unnamed'}, {self.address})"


@dataclass(frozen=True)
class Sessions(Reading):
    """The sessions in a state, the longest first. Our own are shown but not judged."""

    sessions: tuple[Session, ...]
    name: str

    @property
    def judged(self) -> tuple[Session, ...]:
        return tuple(session for session in self.sessions if not session.ours)

    @property
    def longest_s(self) -> float:
        return max((session.seconds for session in self.judged), default=0.0)

    def numbers(self) -> Mapping[str, float]:
        return {f"{self.name}": len(self.sessions), f"longest of {self.name} (s)": self.longest_s}

    def rows(self) -> Sequence[Row]:
        return [
            as_row(
                session,
                seconds=round(session.seconds, 1),
                backend_start=str(session.backend_start),
                xact_start=str(session.xact_start or ""),
            )
            for session in self.sessions
        ]


def _read_connections(session: ProbeSession) -> Connections:
    limits = session.row(_LIMITS)
    return Connections(
        groups=session.read(ConnectionGroup, _CONNECTIONS),
        max_connections=limits["max_connections"],
        usable=limits["max_connections"] - limits["reserved"],
    )


def judge_connections(reading: Connections, thresholds: Thresholds) -> Answer:
    states = ", ".join(f"{count} {state}" for state, count in sorted(reading.by_state().items(), key=lambda s: -s[1]))
    summary = f"{reading.used} of {reading.usable} usable connections ({reading.percent:.0f} %): {states}"
    status = thresholds.status(reading.percent)
    if status is Outcome.OK:
        return answer(status, summary)
    most = max(reading.groups, key=lambda group: group.connections)
    return answer(
        status,
        summary,
        f"limit the connection pool of {most.application}, or raise max_connections (needs a restart): role "
        f"{most.role} of {most.application} holds {most.connections} ({most.state})",
        (
            "db.SetMaxOpenConns(25); db.SetMaxIdleConns(5); db.SetConnMaxLifetime(5 * time.Minute)",
            f"ALTER SYSTEM SET max_connections = {reading.max_connections * 2};",
        ),
    )


def _read_busy(session: ProbeSession) -> Sessions:
    return Sessions(session.read(Session, _BUSY, (_SHOWN,)), "running queries")


def judge_long_queries(reading: Sessions, thresholds: Thresholds) -> Answer:
    running = format_count(len(reading.judged), "running query", "running queries")
    if not reading.judged:
        return answer(Outcome.OK, "no query is running")
    longest = reading.judged[0]
    summary = f"{running}, the longest for {format_duration(longest.seconds)}: {longest.describe()}"
    status = thresholds.status(longest.seconds)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        "look at its plan with EXPLAIN; cancel it if its result is not needed, and set a statement_timeout",
        (
            f"SELECT pg_cancel_backend({longest.pid});",
            f"ALTER ROLE {longest.role} SET statement_timeout = '60s';",
        ),
    )


def _read_idle_in_transaction(session: ProbeSession) -> Sessions:
    return Sessions(session.read(Session, _IDLE_IN_TRANSACTION, (_SHOWN,)), "idle transactions")


def judge_idle_in_transaction(reading: Sessions, thresholds: Thresholds) -> Answer:
    if not reading.judged:
        return answer(Outcome.OK, "no session is idle in a transaction")
    longest = reading.judged[0]
    count = format_count(len(reading.judged), "session")
    summary = f"{count} idle in a transaction, the longest for {format_duration(longest.seconds)}: {longest.describe()}"
    status = thresholds.status(longest.seconds)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        "end it, and set an idle_in_transaction_session_timeout: it holds its locks and keeps VACUUM from removing "
        "dead rows",
        (
            "tmi-ops maintain --only connections --terminate --dry-run",
            f"SELECT pg_terminate_backend({longest.pid});",
            f"ALTER ROLE {longest.role} SET idle_in_transaction_session_timeout = '5min';",
        ),
    )


CONNECTIONS = Probe(
    "connections",
    Area.ACTIVITY,
    "Connections by state, against max_connections",
    "connections in use, of those that max_connections leaves to ordinary roles",
    Thresholds(80, 95, "%"),
    _read_connections,
    judge_connections,
    needs=(READ_ALL_STATS,),
)
LONG_QUERIES = Probe(
    "long_running_queries",
    Area.ACTIVITY,
    "Long-running queries (tmi_ops's own backups are shown, not judged)",
    "duration of the longest",
    Thresholds(300, 1800, "s"),  # the guide asks for those over five minutes
    _read_busy,
    judge_long_queries,
    needs=(READ_ALL_STATS,),
)
IDLE_IN_TRANSACTION = Probe(
    "idle_in_transaction",
    Area.ACTIVITY,
    "Sessions idle in a transaction (tmi_ops's own snapshots are shown, not judged)",
    "longest idle time",
    Thresholds(60, 600, "s"),
    _read_idle_in_transaction,
    judge_idle_in_transaction,
    needs=(READ_ALL_STATS,),
)
