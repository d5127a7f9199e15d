"""Indexes that a failed build left invalid, and indexes that are there twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.health.verdict import Reading, Row, as_row, verdict
from tmi_ops.health.words import count_words, list_words
from tmi_ops.words import size_words

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_MEGA = 1_000_000
_INVALID = """
SELECT c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name, c.relname::text AS bare_name,
       i.indisunique AS is_unique, pg_get_indexdef(c.oid) AS definition,
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid) AS being_built,
       (SELECT o.indexrelid::regclass::text FROM pg_index o JOIN pg_class oc ON oc.oid = o.indexrelid
        WHERE o.indrelid = i.indrelid AND o.indisvalid
          AND oc.relname = regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')
          AND oc.relname <> c.relname) AS original
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't'
ORDER BY 1
"""
# An index is superfluous beside another with the same columns, order and predicate that guarantees no less: what is
# unique needs one that is unique in the same way (NULLS NOT DISTINCT, checked at once or deferred). What replication
# (REPLICA IDENTITY) or CLUSTER goes by never is, nor a part of a partitioned index, which cannot go alone. The kept
# one: primary, then constraint, unique. `indnullsnotdistinct` is there since 15.
_DUPLICATES = """
WITH listed AS (
  SELECT i.indrelid, i.indexrelid, i.indisunique,
         quote_ident(k.conname) AS constraint_name,
         CASE WHEN i.indisunique THEN concat_ws('|', i.indimmediate, coalesce(k.condeferrable, false),
                                                to_jsonb(i) ->> 'indnullsnotdistinct') END AS guarantee,
         i.indisreplident OR i.indisclustered OR c.relispartition AS is_needed,
         pg_relation_size(i.indexrelid) AS size,
         concat_ws('|', i.indrelid, c.relam, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
                   pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)) AS shape,
         row_number() OVER (ORDER BY i.indisprimary DESC, c.relispartition DESC, k.conname IS NOT NULL DESC,
                            i.indisunique DESC, length(c.relname), c.relname) AS preference
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
  WHERE i.indisvalid AND c.relkind = 'i' AND c.relnamespace::regnamespace::text !~ '^pg_'
)
SELECT listed.indexrelid::regclass::text AS name, listed.indrelid::regclass::text AS table_name,
       kept.indexrelid::regclass::text AS same_as, listed.constraint_name, listed.size
FROM listed CROSS JOIN LATERAL (
  SELECT other.indexrelid FROM listed other
  WHERE other.shape = listed.shape AND other.preference < listed.preference
    AND (listed.guarantee IS NULL OR other.guarantee = listed.guarantee)
  ORDER BY other.preference LIMIT 1
) kept
WHERE NOT listed.is_needed
ORDER BY size DESC, 1
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
    constraint_name: str | None
    size: int

    @property
    def cure(self) -> str:
        """The SQL that mends it."""
        if self.constraint_name is not None:
            return f"ALTER TABLE {self.table_name} DROP CONSTRAINT {self.constraint_name};"
        return f"DROP INDEX CONCURRENTLY {self.name};"


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


def _read_invalid(session: ProbeSession) -> InvalidIndexes:
    return InvalidIndexes(session.read(InvalidIndex, _INVALID))


def judge_invalid(reading: InvalidIndexes, thresholds: Thresholds) -> Answer:
    building = len(reading.indexes) - len(reading.judged)
    if not reading.judged:
        return verdict(Outcome.OK, f"none; {building} being built" if building else "none")
    names = [index.name for index in reading.judged]
    return verdict(
        thresholds.status(len(names)),
        f"{count_words(len(names), 'index is', 'indexes are')} invalid: {list_words(names)}",
        "no query uses them, a unique one guarantees nothing, and writes maintain them: `tmi-ops maintain` mends them",
        tuple(index.cure for index in reading.judged[:5]),
    )


def _read_duplicates(session: ProbeSession) -> DuplicateIndexes:
    return DuplicateIndexes(session.read(DuplicateIndex, _DUPLICATES))


def judge_duplicates(reading: DuplicateIndexes, thresholds: Thresholds) -> Answer:
    if not reading.indexes:
        return verdict(Outcome.OK, "none")
    first, size = reading.indexes[0], sum(index.size for index in reading.indexes)
    count = count_words(len(reading.indexes), "index is", "indexes are")
    remedy = tuple(one.cure for one in reading.indexes[:5])
    return verdict(
        thresholds.status(len(reading.indexes)),
        f"{count} superfluous ({size_words(size)}): {first.name} is the same as {first.same_as}",
        "each write maintains both: drop the superfluous one",
        remedy,
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
