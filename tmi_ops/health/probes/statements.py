"""Slow queries, from pg_stat_statements (guide: Slow query identification)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer
from tmi_ops.health.formatting import format_count, literal, query_shape
from tmi_ops.health.probe import READ_ALL_SETTINGS, READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

EXTENSION = "pg_stat_statements"
# A few runs say little, and a nightly report may be slow.
_ENOUGH_CALLS = 10
_SHOWN = 20

# Dumps, maintenance and DDL are slow by nature; this probe is about the application's queries.
_STATEMENTS = """
SELECT query, calls::int, mean_exec_time AS mean_ms, max_exec_time AS max_ms, total_exec_time AS total_ms,
       rows::float8 / greatest(calls, 1) AS rows_per_call, userid::regrole::text AS role
FROM {schema}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND calls >= %s
  AND query !~* '^\\s*(copy|vacuum|analyze|reindex|create|alter|drop|refresh|cluster|checkpoint|set|begin|commit)\\y'
ORDER BY mean_exec_time DESC LIMIT %s
"""


@dataclass(frozen=True)
class Statement:
    """A query as pg_stat_statements normalised it. Times in milliseconds."""

    query: str
    calls: int
    mean_ms: float
    max_ms: float
    total_ms: float
    rows_per_call: float
    role: str


@dataclass(frozen=True)
class SlowQueries(Reading):
    """The slowest by mean time."""

    statements: tuple[Statement, ...]

    @property
    def slowest_ms(self) -> float:
        return self.statements[0].mean_ms if self.statements else 0.0

    def numbers(self) -> Mapping[str, float]:
        return {"slowest query, mean (ms)": self.slowest_ms}

    def rows(self) -> Sequence[Row]:
        return [
            {
                "mean (ms)": round(one.mean_ms, 2),
                "max (ms)": round(one.max_ms, 2),
                "calls": one.calls,
                "total (s)": round(one.total_ms / 1000, 1),
                "rows per call": round(one.rows_per_call, 1),
                "role": one.role,
                "query": query_shape(one.query),
            }
            for one in self.statements
        ]


def _read(session: ProbeSession) -> SlowQueries:
    preloaded = str(session.row("SELECT current_setting('shared_preload_libraries') AS libraries")["libraries"])
    libraries = [name.strip() for name in preloaded.split(",") if name.strip()]
    query = session.in_schema_of(EXTENSION, _STATEMENTS)
    if EXTENSION not in libraries:
        raise not_loaded(libraries)
    if query is None:
        raise CannotTell(
            Cause.EXTENSION,
            f"{EXTENSION} is loaded, but the extension does not exist in this database.",
            "create it",
            (f"CREATE EXTENSION {EXTENSION};",),
        )
    return SlowQueries(session.read(Statement, query, (_ENOUGH_CALLS, _SHOWN)))


def not_loaded(libraries: Sequence[str]) -> CannotTell:
    """The server does not load pg_stat_statements; `libraries` are those it loads already."""
    return CannotTell(
        Cause.EXTENSION,
        f"{EXTENSION} is not loaded, so there are no statistics of queries.",
        "load it (needs a restart), then create the extension in this database",
        (
            f"ALTER SYSTEM SET shared_preload_libraries = {', '.join(map(literal, [*libraries, EXTENSION]))};",
            "-- restart PostgreSQL, then:",
            f"CREATE EXTENSION IF NOT EXISTS {EXTENSION};",
        ),
    )


def judge(reading: SlowQueries, thresholds: Thresholds) -> Answer:
    if not reading.statements:
        return answer(Outcome.OK, f"no query has run {_ENOUGH_CALLS} times yet")
    slowest = reading.statements[0]
    slow = [one for one in reading.statements if thresholds.crossed(one.mean_ms)]
    status = thresholds.status(slowest.mean_ms)
    summary = f"the slowest query takes {slowest.mean_ms:,.1f} ms on average over {format_count(slowest.calls, 'call')}"
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        f"{format_count(len(slow), 'slow query', 'slow queries')}: {summary}",
        f"look for a missing index in the plan of: {query_shape(slowest.query)}",
        ("EXPLAIN (ANALYZE, BUFFERS) <the query, with real values>;",),
    )


SLOW_QUERIES = Probe(
    "slow_queries",
    Area.ACTIVITY,
    "Slow queries, from pg_stat_statements",
    f"mean time of the slowest query, of those that ran at least {_ENOUGH_CALLS} times",
    Thresholds(100, 5000, "ms"),  # the guide asks for those over 100 ms
    _read,
    judge,
    needs=(READ_ALL_STATS, READ_ALL_SETTINGS),
)
