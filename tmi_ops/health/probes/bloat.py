"""Bloat: disk space that tables and indexes occupy but do not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, TypeVar

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.formatting import count_words, list_words
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.probes.bloat_queries import INDEX_ESTIMATE, INDEX_EXACT, TABLE_ESTIMATE, TABLE_EXACT
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.health.verdict import CannotTell, Cause, Reading, Row, verdict
from tmi_ops.postgres.versions import READ_ALL_DATA
from tmi_ops.text import size_words

if TYPE_CHECKING:
    from psycopg import sql

    from tmi_ops.health.session import ProbeSession

EXTENSION = "pgstattuple"
# Waste in something small is not worth a lock.
FLOOR_BYTES = 8_000_000
_SHOWN = 20


@dataclass(frozen=True)
class Bloated:
    """A table (with its TOAST table) or an index. Bytes; `wasted` is None where it cannot be estimated."""

    name: str
    size: int
    wasted: int | None

    @property
    def percent(self) -> float:
        return 100 * self.wasted / self.size if self.wasted and self.size else 0.0


@dataclass(frozen=True)
class BloatedIndex(Bloated):
    """A btree index of `table_name`."""

    table_name: str


B = TypeVar("B", bound=Bloated)


@dataclass(frozen=True)
class Bloat(Reading):
    """Relations of at least FLOOR_BYTES, the most waste first. `exact`: measured, not estimated."""

    items: tuple[Bloated, ...]
    exact: bool
    what: str

    @property
    def judged(self) -> tuple[Bloated, ...]:
        return tuple(item for item in self.items if item.wasted is not None and item.wasted >= FLOOR_BYTES)

    @property
    def worst_percent(self) -> float:
        return max((item.percent for item in self.judged), default=0.0)

    @property
    def unknown(self) -> tuple[Bloated, ...]:
        """Those without visible statistics: never analyzed, or not readable by our role."""
        return tuple(item for item in self.items if item.wasted is None)

    def over(self, thresholds: Thresholds) -> tuple[Bloated, ...]:
        """Those that are at least a warning."""
        return tuple(item for item in self.judged if thresholds.crossed(item.percent))

    def numbers(self) -> Mapping[str, float]:
        wasted = sum(item.wasted or 0 for item in self.items)
        return {f"{self.what} bloat (MB)": wasted / 1e6, f"worst {self.what} bloat (%)": self.worst_percent}

    def rows(self) -> Sequence[Row]:
        return [
            {
                self.what: item.name,
                "size": size_words(item.size),
                "wasted": "not known" if item.wasted is None else size_words(item.wasted),
                "wasted (%)": round(item.percent, 1),
            }
            for item in self.items[:_SHOWN]
        ]


def _read(session: ProbeSession, kind: type[B], what: str, estimate: LiteralString, exact: LiteralString) -> Bloat:
    if session.exact_bloat:
        items = session.read(kind, _exact_query(session, exact), (FLOOR_BYTES,))
    else:
        items = session.read(kind, estimate, (FLOOR_BYTES,))
    reading = Bloat(items, session.exact_bloat, what)
    if items and len(reading.unknown) == len(items):
        raise _nothing_known(session, reading)
    return reading


def _exact_query(session: ProbeSession, query: LiteralString) -> sql.Composed:
    measuring = session.in_schema_of(EXTENSION, query)
    if measuring is None:
        raise CannotTell(
            Cause.EXTENSION,
            f"Measuring bloat needs the extension {EXTENSION}, which this database does not have.",
            "create it, or omit --exact-bloat to get an estimate",
            (f"CREATE EXTENSION {EXTENSION};",),
        )
    return measuring


def _nothing_known(session: ProbeSession, reading: Bloat) -> CannotTell:
    """pg_stats hides what the role may not read and is empty before the first ANALYZE: the two look the same."""
    count = count_words(len(reading.items), reading.what, "indexes" if reading.what == "index" else None)
    can_read = "pg_read_all_data" if session.server.major >= READ_ALL_DATA else "SELECT ON ALL TABLES IN SCHEMA public"
    return CannotTell(
        Cause.RIGHT,
        f"The role {session.server.role} can see no statistics of {count}.",
        f"measure with {EXTENSION} instead (pg_monitor is enough), let the role read the tables, or ANALYZE them",
        (
            f"CREATE EXTENSION IF NOT EXISTS {EXTENSION};  -- then: tmi-ops health --exact-bloat",
            session.grant(can_read),
        ),
    )


def _read_tables(session: ProbeSession) -> Bloat:
    return _read(session, Bloated, "table", TABLE_ESTIMATE, TABLE_EXACT)


def _read_indexes(session: ProbeSession) -> Bloat:
    return _read(session, BloatedIndex, "index", INDEX_ESTIMATE, INDEX_EXACT)


def _summary(reading: Bloat) -> str:
    how = "measured" if reading.exact else "estimated"
    plural = "indexes" if reading.what == "index" else "tables"
    if not reading.judged:
        return f"{how}: no {reading.what} wastes {size_words(FLOOR_BYTES)} or more"
    most = reading.judged[0]
    wasted = sum(item.wasted or 0 for item in reading.judged)
    unknown = f"; {len(reading.unknown)} without statistics" if reading.unknown else ""
    return (
        f"{how}: {size_words(wasted)} wasted in {count_words(len(reading.judged), reading.what, plural)}, most in "
        f"{most.name} ({size_words(most.wasted or 0)} of {size_words(most.size)}){unknown}"
    )


def judge_tables(reading: Bloat, thresholds: Thresholds) -> Answer:
    status = thresholds.status(reading.worst_percent)
    over = [item.name for item in reading.over(thresholds)]
    if status is Outcome.OK:
        return verdict(status, _summary(reading))
    return verdict(
        status,
        _summary(reading),
        f"new rows reuse this space; act only if the bloat persists: {list_words(over)}. To return space to the disk, "
        "run pg_repack (online) or VACUUM FULL (locks the table while it copies it)",
        (f"VACUUM (ANALYZE) {over[0]};", f"VACUUM (FULL, ANALYZE) {over[0]};  -- blocks reads and writes of the table"),
    )


def judge_indexes(reading: Bloat, thresholds: Thresholds) -> Answer:
    status = thresholds.status(reading.worst_percent)
    over = [item.name for item in reading.over(thresholds)]
    if status is Outcome.OK:
        return verdict(status, _summary(reading))
    return verdict(
        status,
        _summary(reading),
        f"rebuild online: {list_words(over)}; `tmi-ops maintain` does this",
        tuple(f"REINDEX INDEX CONCURRENTLY {name};" for name in over[:5]),
    )


TABLE_BLOAT = Probe(
    "table_bloat",
    Area.STORAGE,
    "Table bloat",
    f"wasted share of the worst table, of tables that waste at least {size_words(FLOOR_BYTES)}",
    Thresholds(40, 70, "%"),
    _read_tables,
    judge_tables,
)
INDEX_BLOAT = Probe(
    "index_bloat",
    Area.INDEXES,
    "Index bloat",
    f"wasted share of the worst index, of indexes that waste at least {size_words(FLOOR_BYTES)}",
    Thresholds(50, 80, "%"),
    _read_indexes,
    judge_indexes,
)
