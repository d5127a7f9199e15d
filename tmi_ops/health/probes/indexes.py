"""Indexes that are invalid, twice there, never used, or missing under a foreign key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.health.verdict import CannotTell, Cause, Reading, Row, Status, Verdict, as_row
from tmi_ops.health.words import count_words, list_words, size_words, time_words

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_MEGA = 1024 * 1024
# A month's work may need an index that a week's does not; less than a week says nothing.
OBSERVED_LONG_ENOUGH_S = 7 * 86400
# Scanning less than this for each row deleted from the other table is no matter.
FOREIGN_KEY_FLOOR_BYTES = 1 * _MEGA

_INVALID = """
SELECT c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name, c.relname::text AS bare_name,
       i.indisunique AS is_unique, pg_get_indexdef(c.oid) AS definition,
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid) AS being_built,
       (SELECT o.indexrelid::regclass::text FROM pg_index o JOIN pg_class oc ON oc.oid = o.indexrelid
        WHERE o.indrelid = i.indrelid AND o.indisvalid
          AND oc.relname = regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')
          AND oc.relname <> c.relname) AS original
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i'
ORDER BY 1
"""
# Two indexes are the same when everything but name and uniqueness is. The kept one: primary, then constraint, unique.
_DUPLICATES = """
WITH listed AS (
  SELECT i.indrelid, i.indexrelid, i.indisunique, k.conname IS NOT NULL AS has_constraint,
         pg_relation_size(i.indexrelid) AS size,
         concat_ws('|', i.indrelid, c.relam, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
                   pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)) AS shape,
         row_number() OVER (ORDER BY i.indisprimary DESC, k.conname IS NOT NULL DESC, i.indisunique DESC,
                            length(c.relname), c.relname) AS preference
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
  WHERE i.indisvalid AND c.relkind = 'i' AND c.relnamespace::regnamespace::text !~ '^pg_'
), kept AS (
  SELECT DISTINCT ON (shape) shape, indexrelid FROM listed ORDER BY shape, preference
)
SELECT listed.indexrelid::regclass::text AS name, listed.indrelid::regclass::text AS table_name,
       kept.indexrelid::regclass::text AS same_as, listed.has_constraint, listed.size
FROM listed JOIN kept USING (shape)
WHERE listed.indexrelid <> kept.indexrelid
ORDER BY size DESC, 1
"""
_UNUSED = """
SELECT s.indexrelid::regclass::text AS name, s.relid::regclass::text AS table_name,
       pg_relation_size(s.indexrelid) AS size
FROM pg_stat_user_indexes s JOIN pg_index i USING (indexrelid)
WHERE s.idx_scan = 0 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisreplident AND NOT i.indisclustered
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = s.indexrelid)
ORDER BY size DESC
"""
_OBSERVED = """
SELECT extract(epoch FROM clock_timestamp() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 AS seconds,
       EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL) AS has_standby
FROM pg_stat_database d WHERE datname = current_database()
"""
# An index serves a foreign key when its first columns are the key's, in any order, and it covers all rows.
_FOREIGN_KEYS = """
SELECT k.conrelid::regclass::text AS table_name, quote_ident(k.conname) AS name,
       k.confrelid::regclass::text AS refers_to,
       ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS c(number, position)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number ORDER BY position) AS columns,
       pg_relation_size(k.conrelid) AS size
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
WHERE k.contype = 'f' AND k.conparentid = 0 AND t.relkind = 'r'
  AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
      AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
ORDER BY size DESC, 1, 2
"""


@dataclass(frozen=True)
class InvalidIndex:
    """An index no query uses, though every write maintains it.

    Attributes:
        being_built: somebody builds an index of the table now, so this may be it.
        original: the valid index it was to replace, when REINDEX CONCURRENTLY left it (`_ccnew`, `_ccold`).
    """

    name: str
    table_name: str
    bare_name: str
    is_unique: bool
    definition: str
    being_built: bool
    original: str | None

    @property
    def leftover(self) -> bool:
        """Whether it can be dropped without loss: what it was to replace is there and valid."""
        return self.original is not None

    @property
    def cure(self) -> str:
        """The SQL that mends it."""
        deed = "DROP INDEX CONCURRENTLY" if self.leftover else "REINDEX INDEX CONCURRENTLY"
        return f"{deed} {self.name};"


@dataclass(frozen=True)
class InvalidIndexes(Reading):
    """All but those being built count."""

    indexes: tuple[InvalidIndex, ...]

    @property
    def judged(self) -> tuple[InvalidIndex, ...]:
        return tuple(index for index in self.indexes if not index.being_built)

    def numbers(self) -> Mapping[str, float]:
        return {"invalid indexes": len(self.judged)}

    def rows(self) -> Sequence[Row]:
        return [
            {
                "index": one.name,
                "table": one.table_name,
                "state": "being built" if one.being_built else "invalid",
                "cure": one.cure,
            }
            for one in self.indexes
        ]


@dataclass(frozen=True)
class DuplicateIndex:
    """An index that another one makes superfluous. Bytes."""

    name: str
    table_name: str
    same_as: str
    has_constraint: bool
    size: int


@dataclass(frozen=True)
class DuplicateIndexes(Reading):
    """The largest first."""

    indexes: tuple[DuplicateIndex, ...]

    def numbers(self) -> Mapping[str, float]:
        return {
            "duplicate indexes": len(self.indexes),
            "duplicate indexes (MB)": sum(i.size for i in self.indexes) / _MEGA,
        }

    def rows(self) -> Sequence[Row]:
        return [as_row(one, size=size_words(one.size)) for one in self.indexes]


@dataclass(frozen=True)
class UnusedIndex:
    """An index no query has used. Bytes."""

    name: str
    table_name: str
    size: int


@dataclass(frozen=True)
class UnusedIndexes(Reading):
    """Not used in `observed_s` seconds; the largest first. A standby's queries are not counted here."""

    indexes: tuple[UnusedIndex, ...]
    observed_s: float
    has_standby: bool

    @property
    def megabytes(self) -> float:
        return sum(index.size for index in self.indexes) / _MEGA

    def numbers(self) -> Mapping[str, float]:
        return {"unused indexes (MB)": self.megabytes}

    def rows(self) -> Sequence[Row]:
        return [as_row(one, size=size_words(one.size)) for one in self.indexes[:20]]


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
                "table size": size_words(k.size),
                "cure": k.cure,
            }
            for k in self.keys
        ]


def _read_invalid(session: ProbeSession) -> InvalidIndexes:
    return InvalidIndexes(session.read(InvalidIndex, _INVALID))


def judge_invalid(reading: InvalidIndexes, thresholds: Thresholds) -> Verdict:
    building = len(reading.indexes) - len(reading.judged)
    if not reading.judged:
        return Verdict(Status.OK, f"none; {building} being built" if building else "none")
    names = [index.name for index in reading.judged]
    return Verdict(
        thresholds.status(len(names)),
        f"{count_words(len(names), 'index is', 'indexes are')} invalid: {list_words(names)}",
        "no query uses them, a unique one guarantees nothing, and writes maintain them: `tmi-ops maintain` mends them",
        tuple(index.cure for index in reading.judged[:5]),
    )


def _read_duplicates(session: ProbeSession) -> DuplicateIndexes:
    return DuplicateIndexes(session.read(DuplicateIndex, _DUPLICATES))


def judge_duplicates(reading: DuplicateIndexes, thresholds: Thresholds) -> Verdict:
    if not reading.indexes:
        return Verdict(Status.OK, "none")
    first, size = reading.indexes[0], sum(index.size for index in reading.indexes)
    count = count_words(len(reading.indexes), "index is", "indexes are")
    remedy = tuple(
        f"ALTER TABLE {one.table_name} DROP CONSTRAINT <its constraint>;" if one.has_constraint
        else f"DROP INDEX CONCURRENTLY {one.name};"
        for one in reading.indexes[:5]
    )  # fmt: skip
    return Verdict(
        thresholds.status(len(reading.indexes)),
        f"{count} superfluous ({size_words(size)}): {first.name} is the same as {first.same_as}",
        "each write maintains both: drop the superfluous one",
        remedy,
    )


def _read_unused(session: ProbeSession) -> UnusedIndexes:
    observed = session.row(_OBSERVED)
    return UnusedIndexes(session.read(UnusedIndex, _UNUSED), observed["seconds"], observed["has_standby"])


def judge_unused(reading: UnusedIndexes, thresholds: Thresholds) -> Verdict:
    if reading.observed_s < OBSERVED_LONG_ENOUGH_S:
        raise CannotTell(
            Cause.TOO_EARLY,
            f"The statistics began {time_words(reading.observed_s)} ago; which indexes nobody uses shows after "
            f"{time_words(OBSERVED_LONG_ENOUGH_S)}.",
        )
    status = thresholds.status(reading.megabytes)
    names = [index.name for index in reading.indexes]
    summary = (
        f"{count_words(len(names), 'index', 'indexes')} ({size_words(reading.megabytes * _MEGA)}) not used in "
        f"{time_words(reading.observed_s)}"
    )
    if status is Status.OK:
        return Verdict(status, summary)
    standby = " A standby's queries do not count here: look there first." if reading.has_standby else ""
    return Verdict(
        status,
        f"{summary}: {list_words(names)}",
        f"TMI's models ask for some of them (`tmi-ops check`): drop only what they do not know.{standby}",
        tuple(f"DROP INDEX CONCURRENTLY {name};" for name in names[:5]),
    )


def _read_keys(session: ProbeSession) -> UnindexedKeys:
    return UnindexedKeys(session.read(UnindexedKey, _FOREIGN_KEYS))


def judge_keys(reading: UnindexedKeys, thresholds: Thresholds) -> Verdict:
    small = len(reading.keys) - len(reading.judged)
    also = f"; {small} more of small tables" if small else ""
    status = thresholds.status(len(reading.judged))
    if status is Status.OK:
        return Verdict(status, f"none of a large table{also}")
    first = reading.judged[0]
    names = [f"{key.table_name} ({', '.join(key.columns)})" for key in reading.judged]
    return Verdict(
        status,
        f"{count_words(len(names), 'foreign key has', 'foreign keys have')} no index: {list_words(names)}{also}",
        f"a row deleted from {first.refers_to} reads all of {first.table_name}: give it an index",
        tuple(key.cure for key in reading.judged[:5]),
    )


INVALID_INDEXES = Probe(
    "invalid_indexes",
    Area.INDEXES,
    "Indexes a failed build left invalid",
    "indexes, without those being built now",
    Thresholds(1, None, "indexes"),
    _read_invalid,
    judge_invalid,
)
DUPLICATE_INDEXES = Probe(
    "duplicate_indexes",
    Area.INDEXES,
    "Indexes that are there twice",
    "superfluous indexes",
    Thresholds(1, None, "indexes"),
    _read_duplicates,
    judge_duplicates,
)
UNUSED_INDEXES = Probe(
    "unused_indexes",
    Area.INDEXES,
    "Indexes no query has used",
    f"their size, once the statistics span {time_words(OBSERVED_LONG_ENOUGH_S)}; unique ones always count as used",
    Thresholds(256, None, "MB"),
    _read_unused,
    judge_unused,
)
FOREIGN_KEYS_WITHOUT_INDEX = Probe(
    "foreign_keys_without_index",
    Area.INDEXES,
    "Foreign keys without an index",
    f"those of tables of at least {size_words(FOREIGN_KEY_FLOOR_BYTES)}",
    Thresholds(1, None, "keys"),
    _read_keys,
    judge_keys,
)
