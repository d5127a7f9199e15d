"""Indexes that no query has used, and foreign keys without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_duration, format_size

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_MEGA = 1_000_000
# Some indexes serve only a monthly job, but less than a week of statistics says nothing at all.
OBSERVED_LONG_ENOUGH_S = 7 * 86400
# Scanning less than this for each row deleted from the referenced table is cheap.
FOREIGN_KEY_FLOOR_BYTES = 1 * _MEGA

_UNUSED = """
SELECT s.indexrelid::regclass::text AS name, s.relid::regclass::text AS table_name,
       pg_relation_size(s.indexrelid) AS size
FROM pg_stat_user_indexes s JOIN pg_index i USING (indexrelid) JOIN pg_class c ON c.oid = s.indexrelid
WHERE s.idx_scan = 0 AND c.relpersistence <> 't' AND NOT c.relispartition AND i.indisvalid AND NOT i.indisunique
  AND NOT i.indisreplident AND NOT i.indisclustered
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = s.indexrelid)
ORDER BY size DESC
"""
_MOST_USED = """
SELECT indexrelid::regclass::text AS name, relid::regclass::text AS table_name, pg_relation_size(indexrelid) AS size,
       idx_scan AS scans, idx_tup_read AS entries_read, idx_tup_fetch AS rows_fetched
FROM pg_stat_user_indexes WHERE idx_scan > 0 ORDER BY idx_scan DESC, name LIMIT 10
"""
_OBSERVED = """
SELECT extract(epoch FROM clock_timestamp() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 AS seconds,
       EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL) AS has_standby
FROM pg_stat_database d WHERE datname = current_database()
"""
# An index serves a foreign key when its first columns are the key's, in any order, and it covers all rows, or all rows
# whose key is not NULL. Each partition has its own copy of the key and is checked by itself. A key that references a
# partitioned table has further copies for the partitions it references: these are left out.
_FOREIGN_KEYS = """
SELECT k.conrelid::regclass::text AS table_name, quote_ident(k.conname) AS name,
       k.confrelid::regclass::text AS refers_to,
       ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS c(number, position)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number ORDER BY position) AS columns,
       pg_relation_size(k.conrelid) AS size
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
WHERE k.contype = 'f' AND t.relkind = 'r' AND t.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
  AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = k.conrelid AND i.indisvalid
      AND (i.indpred IS NULL OR (
        SELECT bool_and(btrim(part, '() ') IN (
          SELECT quote_ident(a.attname) || ' IS NOT NULL' FROM pg_attribute a
          WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)))
        FROM regexp_split_to_table(pg_get_expr(i.indpred, i.indrelid), ' AND ') part))
      AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
ORDER BY size DESC, 1, 2
"""


@dataclass(frozen=True)
class UnusedIndex:
    """An index that no query has used. Bytes."""

    name: str
    table_name: str
    size: int


@dataclass(frozen=True)
class UsedIndex:
    """One of the indexes that queries use most (guide: Performance Monitoring, index usage)."""

    name: str
    table_name: str
    size: int
    scans: int
    entries_read: int
    rows_fetched: int


@dataclass(frozen=True)
class UnusedIndexes(Reading):
    """Indexes not used in `observed_s` seconds, the largest first. A primary does not count its standbys' queries."""

    indexes: tuple[UnusedIndex, ...]
    observed_s: float
    has_standby: bool
    most_used: tuple[UsedIndex, ...] = ()

    @property
    def megabytes(self) -> float:
        return sum(index.size for index in self.indexes) / _MEGA

    def numbers(self) -> Mapping[str, float]:
        return {"unused indexes (MB)": self.megabytes}

    def rows(self) -> Sequence[Row]:
        unused = [as_row(one, size=format_size(one.size), scans=0) for one in self.indexes[:20]]
        return [*unused, *(as_row(one, size=format_size(one.size)) for one in self.most_used)]


@dataclass(frozen=True)
class UnindexedKey:
    """A foreign key whose columns no index begins with. `size`: bytes of the table that would be scanned."""

    table_name: str
    name: str
    refers_to: str
    columns: list[str]
    size: int

    @property
    def cure(self) -> str:
        return f"CREATE INDEX CONCURRENTLY ON {self.table_name} ({', '.join(self.columns)});"


@dataclass(frozen=True)
class UnindexedKeys(Reading):
    """The largest table first; those of small tables are shown, not judged."""

    keys: tuple[UnindexedKey, ...]

    @property
    def judged(self) -> tuple[UnindexedKey, ...]:
        return tuple(key for key in self.keys if key.size >= FOREIGN_KEY_FLOOR_BYTES)

    def numbers(self) -> Mapping[str, float]:
        return {"foreign keys without index": len(self.keys), "of large tables": len(self.judged)}

    def rows(self) -> Sequence[Row]:
        return [
            {
                "table": k.table_name,
                "foreign key": k.name,
                "refers to": k.refers_to,
                "table size": format_size(k.size),
                "cure": k.cure,
            }
            for k in self.keys
        ]


def _read_unused(session: ProbeSession) -> UnusedIndexes:
    observed = session.row(_OBSERVED)
    return UnusedIndexes(
        session.read(UnusedIndex, _UNUSED),
        observed["seconds"],
        observed["has_standby"],
        session.read(UsedIndex, _MOST_USED),
    )


def judge_unused(reading: UnusedIndexes, thresholds: Thresholds) -> Answer:
    if reading.observed_s < OBSERVED_LONG_ENOUGH_S:
        raise CannotTell(
            Cause.TOO_EARLY,
            f"The statistics span only {format_duration(reading.observed_s)}; unused indexes are judged after "
            f"{format_duration(OBSERVED_LONG_ENOUGH_S)}.",
        )
    status = thresholds.status(reading.megabytes)
    names = [index.name for index in reading.indexes]
    summary = (
        f"{format_count(len(names), 'index', 'indexes')} ({format_size(reading.megabytes * _MEGA)}) not used in "
        f"{format_duration(reading.observed_s)}"
    )
    if status is Outcome.OK:
        return answer(status, summary)
    standby = ". The standbys' queries are not counted here: check their statistics, too" if reading.has_standby else ""
    return answer(
        status,
        f"{summary}: {format_list(names)}",
        f"drop only indexes that TMI's models do not define (`tmi-ops check` lists those){standby}",
        tuple(f"DROP INDEX CONCURRENTLY {name};" for name in names[:5]),
    )


def _read_keys(session: ProbeSession) -> UnindexedKeys:
    return UnindexedKeys(session.read(UnindexedKey, _FOREIGN_KEYS))


def judge_keys(reading: UnindexedKeys, thresholds: Thresholds) -> Answer:
    small = len(reading.keys) - len(reading.judged)
    also = f"; {small} on small tables" if small else ""
    status = thresholds.status(len(reading.judged))
    if status is Outcome.OK:
        return answer(status, f"none on a large table{also}")
    first = reading.judged[0]
    names = [f"{key.table_name} ({', '.join(key.columns)})" for key in reading.judged]
    return answer(
        status,
        f"{format_count(len(names), 'foreign key has', 'foreign keys have')} no index: {format_list(names)}{also}",
        f"create an index: each DELETE of a row of {first.refers_to} scans {first.table_name}",
        tuple(key.cure for key in reading.judged[:5]),
    )


UNUSED_INDEXES = Probe(
    "unused_indexes",
    Area.INDEXES,
    "Indexes that no query has used, and the most used ones",
    f"total size, once the statistics span {format_duration(OBSERVED_LONG_ENOUGH_S)}; unique indexes always count as "
    "used",
    Thresholds(256, None, "MB"),
    _read_unused,
    judge_unused,
)
FOREIGN_KEYS_WITHOUT_INDEX = Probe(
    "foreign_keys_without_index",
    Area.INDEXES,
    "Foreign keys without an index",
    f"foreign keys of tables of at least {format_size(FOREIGN_KEY_FLOOR_BYTES)}",
    Thresholds(1, None, "keys"),
    _read_keys,
    judge_keys,
)
