"""Whether autovacuum keeps up: dead rows, and statistics that are out of date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds

if TYPE_CHECKING:
    from datetime import datetime

    from tmi_ops.health.session import ProbeSession

_SHOWN = 20

# Autovacuum is due at threshold + scale factor * rows, by the table's own settings where it has some.
_TABLES = """
SELECT c.oid::regclass::text AS name,
       s.n_live_tup AS live, s.n_dead_tup AS dead, s.n_mod_since_analyze AS modified,
       least(
         coalesce(own.vacuum_threshold, current_setting('autovacuum_vacuum_threshold')::float8)
           + coalesce(own.vacuum_scale, current_setting('autovacuum_vacuum_scale_factor')::float8)
             * greatest(c.reltuples, 0),
         nullif(coalesce(own.vacuum_max, current_setting('autovacuum_vacuum_max_threshold', true)::float8), -1)
       ) AS vacuum_at,
       coalesce(own.analyze_threshold, current_setting('autovacuum_analyze_threshold')::float8)
         + coalesce(own.analyze_scale, current_setting('autovacuum_analyze_scale_factor')::float8)
           * greatest(c.reltuples, 0) AS analyze_at,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at,
       coalesce(own.enabled, true) AS autovacuum
FROM pg_class c
JOIN pg_stat_user_tables s ON s.relid = c.oid
CROSS JOIN LATERAL (
  SELECT max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold') AS vacuum_threshold,
         max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor') AS vacuum_scale,
         max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_vacuum_max_threshold') AS vacuum_max,
         max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_analyze_threshold') AS analyze_threshold,
         max(option_value::float8) FILTER (WHERE option_name = 'autovacuum_analyze_scale_factor') AS analyze_scale,
         bool_and(option_value::boolean) FILTER (WHERE option_name = 'autovacuum_enabled') AS enabled
  FROM pg_options_to_table(c.reloptions)
  WHERE option_name LIKE 'autovacuum%'
) own
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
"""
_SETTINGS = """
SELECT current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean AS autovacuum,
       current_setting('autovacuum_max_workers')::int AS workers,
       (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'autovacuum worker') AS working
"""


@dataclass(frozen=True)
class TableUpkeep:
    """The rows of a table that wait for VACUUM and ANALYZE, and from how many on autovacuum is due."""

    name: str
    live: int
    dead: int
    modified: int
    vacuum_at: float
    analyze_at: float
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    autovacuum: bool

    @property
    def vacuum_due(self) -> float:
        """Dead rows, as a multiple of autovacuum's threshold."""
        return self.dead / (self.vacuum_at + 1)

    @property
    def analyze_due(self) -> float:
        """Changed rows, as a multiple of autovacuum's threshold."""
        return self.modified / (self.analyze_at + 1)


@dataclass(frozen=True)
class Upkeep(Reading):
    """All tables, and whether autovacuum runs at all."""

    tables: tuple[TableUpkeep, ...]
    autovacuum: bool
    workers: int
    working: int

    def numbers(self) -> Mapping[str, float]:
        return {
            "dead rows": sum(table.dead for table in self.tables),
            "worst table's dead rows (x autovacuum's threshold)": max((t.vacuum_due for t in self.tables), default=0.0),
        }

    def rows(self) -> Sequence[Row]:
        worst_first = sorted(self.tables, key=lambda table: -table.vacuum_due)[:_SHOWN]
        return [
            {
                "table": table.name,
                "live": table.live,
                "dead": table.dead,
                "autovacuum comes at": round(table.vacuum_at),
                "last vacuumed": _when(table.vacuumed_at),
                "autovacuum": "on" if table.autovacuum else "off for this table",
            }
            for table in worst_first
        ]


@dataclass(frozen=True)
class Statistics(Upkeep):
    """The same tables, judged by their statistics."""

    def numbers(self) -> Mapping[str, float]:
        return {
            "rows changed since ANALYZE": sum(table.modified for table in self.tables),
            "worst table's changes (x autovacuum's threshold)": max((t.analyze_due for t in self.tables), default=0.0),
        }

    def rows(self) -> Sequence[Row]:
        worst_first = sorted(self.tables, key=lambda table: -table.analyze_due)[:_SHOWN]
        return [
            {
                "table": table.name,
                "live": table.live,
                "changed": table.modified,
                "autovacuum comes at": round(table.analyze_at),
                "last analysed": _when(table.analyzed_at),
                "autovacuum": "on" if table.autovacuum else "off for this table",
            }
            for table in worst_first
        ]


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "never"


def _read_upkeep(session: ProbeSession) -> Upkeep:
    settings = session.row(_SETTINGS)
    return Upkeep(session.read(TableUpkeep, _TABLES), **settings)


def _read_statistics(session: ProbeSession) -> Statistics:
    settings = session.row(_SETTINGS)
    return Statistics(session.read(TableUpkeep, _TABLES), **settings)


def judge_upkeep(reading: Upkeep, thresholds: Thresholds) -> Answer:
    due = sorted((t for t in reading.tables if thresholds.crossed(t.vacuum_due)), key=lambda t: -t.vacuum_due)
    status = thresholds.status(max((table.vacuum_due for table in reading.tables), default=0.0))
    dead = format_count(sum(table.dead for table in reading.tables), "dead row")
    summary = f"{dead} in {format_count(len(reading.tables), 'table')}"
    if due:
        worst = due[0]
        summary = (
            f"{format_count(len(due), 'table')} behind: {worst.name} has {format_count(worst.dead, 'dead row')}, "
            f"autovacuum is due at {worst.vacuum_at:,.0f}"
        )
    if not reading.autovacuum:
        return answer(
            Outcome.CRITICAL if status is Outcome.CRITICAL else Outcome.WARNING,
            f"autovacuum is off; {summary}",
            "switch it on: without it, tables grow and the server refuses writes in the end",
            ("ALTER SYSTEM SET autovacuum = on;", "ALTER SYSTEM SET track_counts = on;", "SELECT pg_reload_conf();"),
        )
    if status is Outcome.OK:
        return answer(status, summary)
    switched_off = [table.name for table in due if not table.autovacuum]
    if switched_off:
        return answer(
            status,
            summary,
            f"switch autovacuum on again for {format_list(switched_off)}, and vacuum now",
            (
                f"ALTER TABLE {switched_off[0]} RESET (autovacuum_enabled);",
                *(f"VACUUM (ANALYZE) {t.name};" for t in due[:5]),
            ),
        )
    return answer(
        status,
        summary,
        "vacuum now (`tmi-ops maintain` does this). If tables fall behind again, raise autovacuum's cost limit and see "
        "the probes idle_in_transaction, replication_slots and prepared_transactions for what keeps VACUUM from "
        "removing dead rows",
        (
            *(f"VACUUM (ANALYZE) {table.name};" for table in due[:5]),
            "ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 2000;",
            "SELECT pg_reload_conf();",
        ),
    )


def judge_statistics(reading: Statistics, thresholds: Thresholds) -> Answer:
    due = sorted((t for t in reading.tables if thresholds.crossed(t.analyze_due)), key=lambda t: -t.analyze_due)
    status = thresholds.status(max((table.analyze_due for table in reading.tables), default=0.0))
    if status is Outcome.OK:
        never = sum(table.analyzed_at is None and table.live > 0 for table in reading.tables)
        also = f"; {never} with rows never analyzed" if never else ""
        return answer(status, f"statistics of {format_count(len(reading.tables), 'table')} are up to date{also}")
    worst = due[0]
    return answer(
        status,
        f"{format_count(len(due), 'table')} with outdated statistics: {worst.name} has "
        f"{format_count(worst.modified, 'changed row')} of {worst.live:,}, last analyzed: {_when(worst.analyzed_at)}",
        "analyze now (`tmi-ops maintain` does this): with outdated statistics the planner chooses bad plans",
        tuple(f"ANALYZE {table.name};" for table in due[:5]),
    )


AUTOVACUUM = Probe(
    "autovacuum",
    Area.VACUUM,
    "Dead rows that autovacuum should have removed",
    "dead rows of the worst table, as a multiple of autovacuum's threshold; autovacuum that is off is a warning",
    Thresholds(2, 10, "x"),
    _read_upkeep,
    judge_upkeep,
)
ANALYZE = Probe(
    "analyze",
    Area.VACUUM,
    "Planner statistics that are out of date",
    "rows changed in the worst table, as a multiple of autovacuum's threshold",
    Thresholds(2, 10, "x"),
    _read_statistics,
    judge_statistics,
)
