"""Sizes of databases and tables, and how fast they grow (guide: Database size, Table sizes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_duration, format_size

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_MEGA = 1_000_000
_DAY_S = 86400
_SHOWN = 20

_TABLES = """
SELECT c.oid::regclass::text AS name,
       pg_total_relation_size(c.oid) AS total,
       pg_relation_size(c.oid) AS heap,
       pg_indexes_size(c.oid) AS indexes,
       coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0) AS toast,
       greatest(c.reltuples, 0)::bigint AS estimated_rows
FROM pg_class c
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  -- reading the size would wait for an ACCESS EXCLUSIVE lock
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
ORDER BY total DESC LIMIT %s
"""


@dataclass(frozen=True)
class TableSize:
    """Sizes in bytes."""

    name: str
    total: int
    heap: int
    indexes: int
    toast: int
    estimated_rows: int


@dataclass(frozen=True)
class Sizes(Reading):
    """Sizes in bytes; growth in bytes over `growth_s` seconds, None on a first reading."""

    database: str
    databases: Mapping[str, float]
    tables: tuple[TableSize, ...]
    growth_s: float | None = None
    growth: float | None = None
    table_growth: Mapping[str, float] | None = None

    @property
    def size(self) -> float:
        return self.databases.get(self.database, 0.0)

    @property
    def growth_mb_per_day(self) -> float | None:
        if self.growth is None or not self.growth_s:
            return None
        return self.growth / self.growth_s * _DAY_S / _MEGA

    def fastest(self) -> tuple[str, float] | None:
        """The table that grew most, and by how many bytes."""
        growing = {name: grown for name, grown in (self.table_growth or {}).items() if grown > 0}
        return max(growing.items(), key=lambda item: item[1], default=None)

    def numbers(self) -> Mapping[str, float]:
        growth = {} if self.growth_mb_per_day is None else {"growth (MB/day)": self.growth_mb_per_day}
        return {
            "database size (MB)": self.size / _MEGA,
            "all databases (MB)": sum(self.databases.values()) / _MEGA,
            **growth,
        }

    def rows(self) -> Sequence[Row]:
        grown = self.table_growth or {}
        return [
            {
                "table": table.name,
                "total": format_size(table.total),
                "heap": format_size(table.heap),
                "indexes": format_size(table.indexes),
                "toast": format_size(table.toast),
                "rows (estimate)": table.estimated_rows,
                "grown": format_size(grown[table.name]) if table.name in grown else "",
            }
            for table in self.tables
        ]


def _read(session: ProbeSession) -> Sizes:
    seen = session.window
    databases = seen.maybe("databases", over_days=True)
    tables = seen.maybe("tables", over_days=True)
    return Sizes(
        database=session.server.database,
        databases=seen.current.groups["databases"].values,
        tables=session.read(TableSize, _TABLES, (_SHOWN,)),
        growth_s=databases.seconds if databases else None,
        growth=databases.values.get(session.server.database) if databases else None,
        table_growth=tables.values if tables else None,
    )


def judge(reading: Sizes, thresholds: Thresholds) -> Answer:
    largest = (
        f", largest table {reading.tables[0].name} ({format_size(reading.tables[0].total)})" if reading.tables else ""
    )
    summary = f"{reading.database} is {format_size(reading.size)}{largest}"
    if reading.growth_mb_per_day is None or reading.growth_s is None or reading.growth is None:
        return answer(Outcome.OK, f"{summary}; growth is known from the next reading on")
    summary += f"; grew {format_size(reading.growth)} in {format_duration(reading.growth_s)}"
    # A minute's burst is no trend: growth over less than a day is judged as that day's total.
    per_day = reading.growth / max(reading.growth_s, _DAY_S) * _DAY_S / _MEGA
    status = thresholds.status(per_day)
    if status is Outcome.OK:
        return answer(status, summary)
    fastest = reading.fastest()
    most = f"most of it in {fastest[0]} ({format_size(fastest[1])})" if fastest else "not in any one table"
    return answer(
        status,
        summary,
        f"find what grows ({most}); then delete old rows or add disk",
        ("tmi-ops health --probe table_bloat",),
    )


SIZES = Probe(
    "sizes",
    Area.STORAGE,
    "Sizes of databases, tables and indexes, and their growth",
    "growth in a day",
    Thresholds(5 * 1024, 50 * 1024, "MB/day"),
    _read,
    judge,
)
