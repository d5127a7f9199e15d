"""Transactions, rollbacks and deadlocks; the cache hit ratio; temporary files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, answer
from tmi_ops.health.counters import Change
from tmi_ops.health.formatting import format_count
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_duration, format_size

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

# Below these, a percentage says nothing.
_ENOUGH_TRANSACTIONS = 100
_ENOUGH_BLOCKS = 10_000
_MEGA = 1_000_000
_HOUR_S = 3600

_SETTINGS = """
SELECT current_setting('work_mem') AS work_mem, current_setting('shared_buffers') AS shared_buffers
"""


@dataclass(frozen=True)
class Counted(Reading):
    """Counters of the database: `totals` since the last reset, `change` since the last reading, if there is one."""

    totals: Mapping[str, float]
    change: Change | None

    @property
    def newest(self) -> Mapping[str, float]:
        """What happened since the last reading or, on a first run, since the reset."""
        return self.change.values if self.change else self.totals

    def span(self) -> str:
        """The time span of `newest`, as text."""
        return f"in the last {format_duration(self.change.seconds)}" if self.change else "since the statistics began"


@dataclass(frozen=True)
class Transactions(Counted):
    """Commits, rollbacks, deadlocks."""

    @property
    def count(self) -> float:
        return self.newest["xact_commit"] + self.newest["xact_rollback"]

    @property
    def rollback_percent(self) -> float:
        return 100 * self.newest["xact_rollback"] / self.count if self.count else 0.0

    def numbers(self) -> Mapping[str, float]:
        rates = {}
        if self.change:
            rates["transactions (1/s)"] = self.count / self.change.seconds
            rates["deadlocks (1/h)"] = self.change.per_second("deadlocks") * _HOUR_S
        return {"rollbacks (%)": self.rollback_percent, **rates}


@dataclass(frozen=True)
class CacheHits(Counted):
    """Blocks found in shared_buffers, and blocks read into it."""

    shared_buffers: str

    @property
    def blocks(self) -> float:
        return self.newest["blks_hit"] + self.newest["blks_read"]

    @property
    def percent(self) -> float:
        return 100 * self.newest["blks_hit"] / self.blocks if self.blocks else 100.0

    def numbers(self) -> Mapping[str, float]:
        return {"cache hits (%)": self.percent}


@dataclass(frozen=True)
class TemporaryFiles(Counted):
    """What sorts and hashes wrote to disk because work_mem was too small."""

    work_mem: str

    @property
    def mb_per_hour(self) -> float | None:
        return self.change.per_second("temp_bytes") * _HOUR_S / _MEGA if self.change else None

    def numbers(self) -> Mapping[str, float]:
        return {} if self.mb_per_hour is None else {"temporary files (MB/h)": self.mb_per_hour}


def _totals(session: ProbeSession) -> Mapping[str, float]:
    return session.window.current.groups["transactions"].values


def _read_transactions(session: ProbeSession) -> Transactions:
    return Transactions(_totals(session), session.window.maybe("transactions"))


def judge_transactions(reading: Transactions, thresholds: Thresholds) -> Answer:
    deadlocks = reading.newest["deadlocks"]
    rate = f"{reading.count / reading.change.seconds:,.1f}/s, " if reading.change else ""
    summary = (
        f"{rate}{format_count(reading.count, 'transaction')} {reading.span()}, {reading.rollback_percent:.1f} % rolled "
        f"back, {format_count(deadlocks, 'deadlock')}"
    )
    if reading.change is None:
        summary += "; rates are known from the next reading on"
    status = thresholds.status(reading.rollback_percent) if reading.count >= _ENOUGH_TRANSACTIONS else Outcome.OK
    if status is not Outcome.OK:
        return answer(
            status,
            summary,
            "find the errors in the server's log: many transactions fail",
            ("ALTER SYSTEM SET log_min_error_statement = 'error';", "SELECT pg_reload_conf();"),
        )
    if reading.change and deadlocks:
        return answer(
            Outcome.WARNING,
            summary,
            "find both sides of each deadlock in the server's log: transactions lock the same rows in different orders",
            ("ALTER SYSTEM SET log_lock_waits = on;", "SELECT pg_reload_conf();"),
        )
    return answer(status, summary)


def _read_cache(session: ProbeSession) -> CacheHits:
    settings = session.row(_SETTINGS)
    return CacheHits(_totals(session), session.window.maybe("transactions"), settings["shared_buffers"])


def judge_cache(reading: CacheHits, thresholds: Thresholds) -> Answer:
    if reading.blocks < _ENOUGH_BLOCKS:
        return answer(Outcome.OK, f"{format_count(reading.blocks, 'block')} read {reading.span()}, too few to judge")
    summary = f"{reading.percent:.1f} % of {reading.blocks:,.0f} blocks found in the cache {reading.span()}"
    status = thresholds.status(reading.percent)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        f"raise shared_buffers (now {reading.shared_buffers}; needs a restart): about a quarter of the host's memory "
        "is usual. Large scans also lower the ratio: see slow_queries",
        ("ALTER SYSTEM SET shared_buffers = '<a quarter of memory>';",),
    )


def _read_temporary_files(session: ProbeSession) -> TemporaryFiles:
    settings = session.row(_SETTINGS)
    return TemporaryFiles(_totals(session), session.window.maybe("transactions"), settings["work_mem"])


def judge_temporary_files(reading: TemporaryFiles, thresholds: Thresholds) -> Answer:
    files, size = reading.newest["temp_files"], reading.newest["temp_bytes"]
    summary = f"{format_count(files, 'file')}, {format_size(size)} {reading.span()}"
    if reading.mb_per_hour is None:
        return answer(Outcome.OK, f"{summary}; the rate is known from the next reading on")
    status = thresholds.status(reading.mb_per_hour)
    summary += f" ({format_size(reading.mb_per_hour * _MEGA)}/h)"
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        f"log temporary files, then raise work_mem (now {reading.work_mem}) for the role that writes them: its sorts "
        "and hashes do not fit. Each sort of each session may use that much memory",
        (
            "ALTER SYSTEM SET log_temp_files = '10MB';",
            "SELECT pg_reload_conf();",
            "ALTER ROLE <application> SET work_mem = '64MB';",
        ),
    )


TRANSACTIONS = Probe(
    "transactions",
    Area.ACTIVITY,
    "Transaction rate, rollbacks and deadlocks",
    f"share of transactions rolled back, of at least {_ENOUGH_TRANSACTIONS}; a deadlock since the last reading is a "
    "warning",
    Thresholds(10, 50, "%"),
    _read_transactions,
    judge_transactions,
)
CACHE_HIT_RATIO = Probe(
    "cache_hit_ratio",
    Area.ACTIVITY,
    "Cache hit ratio",
    f"share of blocks found in shared_buffers, of at least {_ENOUGH_BLOCKS:,}",
    Thresholds(90, 70, "%", lower_is_worse=True),
    _read_cache,
    judge_cache,
)
TEMPORARY_FILES = Probe(
    "temporary_files",
    Area.STORAGE,
    "Temporary files of sorts and hashes",
    "written since the last reading",
    Thresholds(1024, 10240, "MB/h"),
    _read_temporary_files,
    judge_temporary_files,
)
