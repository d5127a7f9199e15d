"""Sessions that wait for locks, the sessions that block them, and old prepared transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, literal, query_shape
from tmi_ops.health.probe import READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.versions import LOCK_WAIT_START
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_PREPARED_TRANSACTION = 0  # the pid that stands for one in pg_blocking_pids

_WAITERS = """
SELECT w.pid, pg_blocking_pids(w.pid) AS blockers, l.mode, l.locktype AS kind,
       coalesce(l.relation::regclass::text, l.locktype) AS waits_for,
       extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, w.state_change))::float8 AS seconds
FROM pg_stat_activity w JOIN pg_locks l ON l.pid = w.pid AND NOT l.granted
WHERE w.wait_event_type = 'Lock'
ORDER BY seconds DESC LIMIT 100
"""
_WAITERS_BEFORE_14 = """
SELECT w.pid, pg_blocking_pids(w.pid) AS blockers, l.mode, l.locktype AS kind,
       coalesce(l.relation::regclass::text, l.locktype) AS waits_for,
       extract(epoch FROM clock_timestamp() - w.state_change)::float8 AS seconds
FROM pg_stat_activity w JOIN pg_locks l ON l.pid = w.pid AND NOT l.granted
WHERE w.wait_event_type = 'Lock'
ORDER BY seconds DESC LIMIT 100
"""
_PARTIES = """
SELECT pid, quote_ident(usename) AS role, application_name AS application, coalesce(state, backend_type) AS state, query
FROM pg_stat_activity WHERE pid = ANY (%s)
"""
_PREPARED = """
SELECT gid, owner::text AS role, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
FROM pg_prepared_xacts ORDER BY prepared
"""


@dataclass(frozen=True)
class Party:
    """A session that waits or blocks. `query` is without its literals."""

    pid: int
    role: str | None
    application: str
    state: str
    query: str

    def describe(self) -> str:
        return f"pid {self.pid} ({self.role or 'the server'}, {self.application or 'unnamed'}, {self.state})"


@dataclass(frozen=True)
class Waiter:
    """A session that waits for a lock, and the pids that hold it or are ahead of it in the queue (0: prepared)."""

    pid: int
    blockers: list[int]
    mode: str
    kind: str
    waits_for: str
    seconds: float


@dataclass(frozen=True)
class Blocked(Reading):
    """All waiting sessions, the longest wait first, and all sessions involved by pid."""

    waiters: tuple[Waiter, ...]
    parties: Mapping[int, Party]

    @property
    def longest_s(self) -> float:
        return max((waiter.seconds for waiter in self.waiters), default=0.0)

    def roots(self) -> dict[int, int]:
        """Sessions that block others without waiting themselves, and how many wait for each; the worst first."""
        waiting = {waiter.pid: waiter.blockers for waiter in self.waiters}
        counts: dict[int, int] = {}
        for pid in waiting:
            for root in _roots_of(pid, waiting):
                counts[root] = counts.get(root, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def name(self, pid: int) -> str:
        if pid == _PREPARED_TRANSACTION:
            return "a prepared transaction"
        party = self.parties.get(pid)
        return party.describe() if party else f"pid {pid} (gone)"

    def numbers(self) -> Mapping[str, float]:
        return {"sessions waiting for locks": len(self.waiters), "longest wait for a lock (s)": self.longest_s}

    def rows(self) -> Sequence[Row]:
        return [
            {
                "waits": self.name(waiter.pid),
                "seconds": round(waiter.seconds, 1),
                "for": f"{waiter.mode} on {waiter.waits_for}",
                "blocked by": "; ".join(map(self.name, waiter.blockers)),
                "query": self.parties[waiter.pid].query if waiter.pid in self.parties else "",
            }
            for waiter in self.waiters
        ]


def _roots_of(pid: int, waiting: Mapping[int, Sequence[int]]) -> set[int]:
    """Follow the blockers to those that do not wait. A cycle (a deadlock not yet resolved) has no root."""
    roots: set[int] = set()
    seen: set[int] = set()
    ahead = list(waiting[pid])
    while ahead:
        blocker = ahead.pop()
        if blocker in seen:
            continue
        seen.add(blocker)
        if waiting.get(blocker):
            ahead.extend(waiting[blocker])
        else:
            roots.add(blocker)
    return roots


@dataclass(frozen=True)
class PreparedTransaction:
    """A transaction left by PREPARE TRANSACTION."""

    gid: str
    role: str
    database: str
    seconds: float


@dataclass(frozen=True)
class PreparedTransactions(Reading):
    """The oldest first."""

    prepared: tuple[PreparedTransaction, ...]

    def numbers(self) -> Mapping[str, float]:
        return {"prepared transactions": len(self.prepared)}

    def rows(self) -> Sequence[Row]:
        return [as_row(one) for one in self.prepared]


def _read_blocked(session: ProbeSession) -> Blocked:
    waiters = session.read(Waiter, _WAITERS if session.server.major >= LOCK_WAIT_START else _WAITERS_BEFORE_14)
    pids = sorted({waiter.pid for waiter in waiters} | {pid for waiter in waiters for pid in waiter.blockers})
    parties = session.read(Party, _PARTIES, (pids,)) if pids else ()
    shaped = {
        party.pid: Party(party.pid, party.role, party.application, party.state, query_shape(party.query))
        for party in parties
    }
    return Blocked(waiters, shaped)


def judge_blocked(reading: Blocked, thresholds: Thresholds) -> Answer:
    if not reading.waiters:
        return answer(Outcome.OK, "no session waits for a lock")
    roots = reading.roots()
    waits = format_count(len(reading.waiters), "session waits", "sessions wait")
    summary = f"{waits} for locks, the longest for {format_duration(reading.longest_s)}"
    if roots:
        summary += f"; blocked by {reading.name(next(iter(roots)))}"
    status = thresholds.status(reading.longest_s)
    if status is Outcome.OK or not roots:
        return answer(status, summary)
    root = next(iter(roots))
    if root == _PREPARED_TRANSACTION:
        return answer(
            status,
            summary,
            "finish the prepared transaction that holds the lock: see the probe prepared_transactions",
            ("SELECT gid, prepared, owner FROM pg_prepared_xacts ORDER BY prepared;",),
        )
    return answer(
        status,
        summary,
        f"cancel or terminate pid {root}, which blocks the others; the table shows what they wait for",
        (f"SELECT pg_cancel_backend({root});", f"SELECT pg_terminate_backend({root});  -- if cancelling does not help"),
    )


def _read_prepared(session: ProbeSession) -> PreparedTransactions:
    return PreparedTransactions(session.read(PreparedTransaction, _PREPARED))


def judge_prepared(reading: PreparedTransactions, thresholds: Thresholds) -> Answer:
    if not reading.prepared:
        return answer(Outcome.OK, "none")
    oldest = reading.prepared[0]
    count = format_count(len(reading.prepared), "prepared transaction")
    summary = (
        f"{count} not finished; the oldest was prepared {format_duration(oldest.seconds)} ago "
        f"({oldest.role} in {oldest.database})"
    )
    status = thresholds.status(oldest.seconds)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        f"connect to {oldest.database} and roll it back or commit it: it keeps its locks even across a restart",
        (f"ROLLBACK PREPARED {literal(oldest.gid)};", f"COMMIT PREPARED {literal(oldest.gid)};"),
    )


BLOCKED_SESSIONS = Probe(
    "blocked_sessions",
    Area.ACTIVITY,
    "Sessions that wait for locks, and the sessions that block them",
    "longest wait",
    Thresholds(5, 60, "s"),
    _read_blocked,
    judge_blocked,
    needs=(READ_ALL_STATS,),
)
PREPARED_TRANSACTIONS = Probe(
    "prepared_transactions",
    Area.ACTIVITY,
    "Prepared transactions that are neither committed nor rolled back",
    "age of the oldest",
    Thresholds(300, 3600, "s"),
    _read_prepared,
    judge_prepared,
)
