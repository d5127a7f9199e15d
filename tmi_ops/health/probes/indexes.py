"""Invalid indexes and duplicate indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_size

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
# An index is a duplicate when another one has the same columns, order and predicate and guarantees no less: a unique
# index needs one that is unique in the same way (NULLS NOT DISTINCT, immediate or deferred). An index used as REPLICA
# IDENTITY or by CLUSTER never is, nor a partition of an index, which cannot be dropped alone. Preferred: the primary
# key, then a constraint's index, then a unique one. `indnullsnotdistinct` exists since 15.
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
    """An index that no query uses, though every write maintains it.

    Attributes:
        being_built: an index of the table is being built now; it may be this one.
        original: the valid index it was to replace, if REINDEX CONCURRENTLY left it behind (`_ccnew`, `_ccold`).
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
        """Whether it can be dropped without loss: the index it was to replace exists and is valid."""
        return self.original is not None

    @property
    def cure(self) -> str:
        """The SQL that fixes it."""
        action = "DROP INDEX CONCURRENTLY" if self.leftover else "REINDEX INDEX CONCURRENTLY"
        return f"{action} {self.name};"


@dataclass(frozen=True)
class InvalidIndexes(Reading):
    """Invalid indexes; those being built are not judged."""

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
    """An index that another one makes redundant. Bytes."""

    name: str
    table_name: str
    same_as: str
    constraint_name: str | None
    size: int

    @property
    def cure(self) -> str:
        """The SQL that fixes it."""
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
        return [as_row(one, size=format_size(one.size)) for one in self.indexes]


def _read_invalid(session: ProbeSession) -> InvalidIndexes:
    return InvalidIndexes(session.read(InvalidIndex, _INVALID))


def judge_invalid(reading: InvalidIndexes, thresholds: Thresholds) -> Answer:
    building = len(reading.indexes) - len(reading.judged)
    if not reading.judged:
        return answer(Outcome.OK, f"none; {building} being built" if building else "none")
    names = [index.name for index in reading.judged]
    return answer(
        thresholds.status(len(names)),
        f"{format_count(len(names), 'index is', 'indexes are')} invalid: {format_list(names)}",
        "rebuild or drop them (`tmi-ops maintain` does this): no query uses them, unique ones do not guarantee "
        "uniqueness, and every write still maintains them",
        tuple(index.cure for index in reading.judged[:5]),
    )


def _read_duplicates(session: ProbeSession) -> DuplicateIndexes:
    return DuplicateIndexes(session.read(DuplicateIndex, _DUPLICATES))


def judge_duplicates(reading: DuplicateIndexes, thresholds: Thresholds) -> Answer:
    if not reading.indexes:
        return answer(Outcome.OK, "none")
    first, size = reading.indexes[0], sum(index.size for index in reading.indexes)
    count = format_count(len(reading.indexes), "index is", "indexes are")
    remedy = tuple(one.cure for one in reading.indexes[:5])
    return answer(
        thresholds.status(len(reading.indexes)),
        f"{count} redundant ({format_size(size)}): {first.name} duplicates {first.same_as}",
        "drop the redundant index: every write maintains both",
        remedy,
    )


INVALID_INDEXES = Probe(
    "invalid_indexes",
    Area.INDEXES,
    "Invalid indexes, left by a failed build",
    "invalid indexes, except those being built now",
    Thresholds(1, None, "indexes"),
    _read_invalid,
    judge_invalid,
)
DUPLICATE_INDEXES = Probe(
    "duplicate_indexes",
    Area.INDEXES,
    "Duplicate indexes",
    "redundant indexes",
    Thresholds(1, None, "indexes"),
    _read_duplicates,
    judge_duplicates,
)
