"""Bloat: disk space that tables and indexes occupy but do not use.

Queries estimate it from statistics and the page layout, or measure it with pgstattuple. The estimate is the well-known
one (github.com/ioguix/pgsql-bloat-estimation, BSD licence): from the average width of the columns it computes how many
pages the rows would need if nothing were wasted. It needs `pg_stats`, which shows a column only to a role that may read
it. TOAST rows are counted at four chunks a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, TypeVar

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.versions import NEVER_ANALYZED, READ_ALL_DATA, since
from tmi_ops.text import format_size

if TYPE_CHECKING:
    from psycopg import sql

    from tmi_ops.health.session import ProbeSession


# A page has 24 bytes of header, a row 23 (rounded up to 24, plus a bit for each column where one is NULL) and a line
# pointer of 4; rows begin at multiples of 8. A dropped column is NULL in every row written since. Rows wider than half
# a page take a page each.
TABLE_ESTIMATE = """
WITH candidate AS (
  SELECT c.oid, c.oid::regclass::text AS name, n.nspname, c.relname, c.reltuples, c.relpages AS pages,
         coalesce(toast.relpages, 0) AS toast_pages, coalesce(toast.reltuples, 0) AS toast_rows,
         current_setting('block_size')::float8 AS page,
         coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                   WHERE option_name = 'fillfactor'), 100) AS fillfactor,
         (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
           AS columns, c.relnatts AS all_columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
    AND (c.relpages + coalesce(toast.relpages, 0)) * current_setting('block_size')::bigint >= %s
), width AS (
  SELECT candidate.oid, count(s.attname) AS columns_known, bool_or(s.null_frac > 0) AS has_nulls,
         sum((1 - s.null_frac) * s.avg_width) AS data
  FROM candidate
  LEFT JOIN pg_stats s ON (s.schemaname, s.tablename) = (candidate.nspname, candidate.relname) AND NOT s.inherited
  GROUP BY candidate.oid
), tuple AS (
  SELECT candidate.*, columns_known,
         4 + ceil((23 + CASE WHEN has_nulls OR all_columns > columns THEN (all_columns + 7) / 8 ELSE 0 END) / 8.0) * 8
           + ceil(data / 8.0) * 8
           AS width
  FROM candidate JOIN width USING (oid)
)
SELECT name, ((pages + toast_pages) * page)::bigint AS size,
       CASE WHEN columns_known = columns AND reltuples > 0 THEN
         greatest(0, (pages + toast_pages)
           - ceil(reltuples / greatest(1, floor((page - 24) * fillfactor / 100 / width)))
           - ceil(toast_rows / 4.0)) * page
       -- known to be empty; before that version, zero also meant "never analyzed"
       WHEN reltuples = 0 AND current_setting('server_version_num')::int >= :never_analyzed
       THEN (pages + toast_pages) * page
       END::bigint AS wasted
FROM tuple
ORDER BY wasted DESC NULLS LAST, size DESC
""".replace(":never_analyzed", str(since(NEVER_ANALYZED)))

# Free space and dead rows, less what fillfactor keeps free on purpose.
TABLE_EXACT = """
SELECT c.oid::regclass::text AS name, (s.table_len + coalesce(t.table_len, 0)) AS size,
       greatest(0, s.dead_tuple_len + s.free_space
         - s.table_len * (100 - coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                                          WHERE option_name = 'fillfactor'), 100)) / 100
         + coalesce(t.dead_tuple_len + t.free_space, 0))::bigint AS wasted
FROM pg_class c
CROSS JOIN LATERAL {schema}.pgstattuple(c.oid) s
LEFT JOIN LATERAL (SELECT * FROM {schema}.pgstattuple(c.reltoastrelid)) t ON c.reltoastrelid <> 0
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  -- reading the size would wait for an ACCESS EXCLUSIVE lock
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
  AND pg_table_size(c.oid) >= %s
ORDER BY wasted DESC
"""

# A btree page has 24 bytes of header and 16 of its own; an entry has 8 (16 with NULLs) and a line pointer of 4.
INDEX_ESTIMATE = """
WITH candidate AS (
  SELECT c.oid, c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name,
         n.nspname, c.relname, c.reltuples, c.relpages AS pages,
         parent.relname AS parent, i.indkey, i.indnatts, c.relnatts AS columns,
         current_setting('block_size')::float8 AS page,
         coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                   WHERE option_name = 'fillfactor'), 90) AS fillfactor
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class parent ON parent.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = parent.relnamespace
  JOIN pg_am am ON am.oid = c.relam AND am.amname = 'btree'
  WHERE i.indisvalid AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND c.relpages * current_setting('block_size')::bigint >= %s
), width AS (
  SELECT candidate.oid, count(s.attname) AS columns_known, bool_or(s.null_frac > 0) AS has_nulls,
         sum((1 - s.null_frac) * s.avg_width) AS data
  FROM candidate
  JOIN pg_attribute entry ON entry.attrelid = candidate.oid
  LEFT JOIN pg_attribute source
    ON source.attrelid = (SELECT indrelid FROM pg_index WHERE indexrelid = candidate.oid)
   AND source.attnum = candidate.indkey[entry.attnum - 1] AND source.attnum <> 0
  LEFT JOIN pg_stats s
    ON s.schemaname = candidate.nspname AND NOT s.inherited
   AND s.tablename = CASE WHEN source.attname IS NULL THEN candidate.relname ELSE candidate.parent END
   AND s.attname = coalesce(source.attname, entry.attname)
  GROUP BY candidate.oid
), entry AS (
  SELECT candidate.*, columns_known,
         4 + CASE WHEN has_nulls THEN 16 ELSE 8 END + ceil(data / 8.0) * 8 AS width
  FROM candidate JOIN width USING (oid)
)
SELECT name, table_name, (pages * page)::bigint AS size,
       CASE WHEN columns_known = columns AND reltuples >= 0 THEN
         greatest(0, pages - 1
           - ceil(reltuples / greatest(1, floor((page - 24 - 16) * fillfactor / 100 / width)))) * page
       END::bigint AS wasted
FROM entry
ORDER BY wasted DESC NULLS LAST, size DESC
"""

INDEX_EXACT = """
SELECT c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name, s.index_size AS size,
       greatest(0, s.index_size
         * (1 - least(1, s.avg_leaf_density / coalesce((SELECT option_value::float8
              FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 90)))
         + s.deleted_pages * current_setting('block_size')::bigint)::bigint AS wasted
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam AND am.amname = 'btree'
CROSS JOIN LATERAL {schema}.pgstatindex(c.oid) s
WHERE i.indisvalid AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  AND pg_relation_size(c.oid) >= %s
ORDER BY wasted DESC
"""


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
                "size": format_size(item.size),
                "wasted": "not known" if item.wasted is None else format_size(item.wasted),
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
    count = format_count(len(reading.items), reading.what, "indexes" if reading.what == "index" else None)
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
        return f"{how}: no {reading.what} wastes {format_size(FLOOR_BYTES)} or more"
    most = reading.judged[0]
    wasted = sum(item.wasted or 0 for item in reading.judged)
    unknown = f"; {len(reading.unknown)} without statistics" if reading.unknown else ""
    return (
        f"{how}: {format_size(wasted)} wasted in {format_count(len(reading.judged), reading.what, plural)}, most in "
        f"{most.name} ({format_size(most.wasted or 0)} of {format_size(most.size)}){unknown}"
    )


def judge_tables(reading: Bloat, thresholds: Thresholds) -> Answer:
    status = thresholds.status(reading.worst_percent)
    over = [item.name for item in reading.over(thresholds)]
    if status is Outcome.OK:
        return answer(status, _summary(reading))
    return answer(
        status,
        _summary(reading),
        f"new rows reuse this space; act only if the bloat persists: {format_list(over)}. To return space to the disk, "
        "run pg_repack (online) or VACUUM FULL (locks the table while it copies it)",
        (f"VACUUM (ANALYZE) {over[0]};", f"VACUUM (FULL, ANALYZE) {over[0]};  -- blocks reads and writes of the table"),
    )


def judge_indexes(reading: Bloat, thresholds: Thresholds) -> Answer:
    status = thresholds.status(reading.worst_percent)
    over = [item.name for item in reading.over(thresholds)]
    if status is Outcome.OK:
        return answer(status, _summary(reading))
    return answer(
        status,
        _summary(reading),
        f"rebuild online: {format_list(over)}; `tmi-ops maintain` does this",
        tuple(f"REINDEX INDEX CONCURRENTLY {name};" for name in over[:5]),
    )


TABLE_BLOAT = Probe(
    "table_bloat",
    Area.STORAGE,
    "Table bloat",
    f"wasted share of the worst table, of tables that waste at least {format_size(FLOOR_BYTES)}",
    Thresholds(40, 70, "%"),
    _read_tables,
    judge_tables,
)
INDEX_BLOAT = Probe(
    "index_bloat",
    Area.INDEXES,
    "Index bloat",
    f"wasted share of the worst index, of indexes that waste at least {format_size(FLOOR_BYTES)}",
    Thresholds(50, 80, "%"),
    _read_indexes,
    judge_indexes,
)
