"""Sequences that run out of values: of the sequence and each column it fills, owned or not, the narrower decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer
from tmi_ops.health.formatting import format_count
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_SEQUENCES = """
SELECT format('%I.%I', s.schemaname, s.sequencename) AS name,
       a.attrelid::regclass::text AS table_name, quote_ident(a.attname) AS column_name,
       format_type(a.atttypid, NULL) AS column_type, s.last_value::float8 AS last_value,
       has_sequence_privilege(q.seqrelid, 'USAGE, SELECT') AS readable, s.increment_by > 0 AS ascending,
       s.start_value::float8 AS start_value, s.min_value::float8 AS min_value,
       least(s.max_value, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END
       )::float8 AS max_value,
       s.cycle
FROM pg_sequences s
JOIN pg_class c ON c.relname = s.sequencename AND c.relnamespace::regnamespace::text = quote_ident(s.schemaname)
JOIN pg_sequence q ON q.seqrelid = c.oid
LEFT JOIN LATERAL (
  SELECT owned.refobjid AS relation, owned.refobjsubid AS number FROM pg_depend owned
  WHERE owned.classid = 'pg_class'::regclass AND owned.objid = c.oid AND owned.deptype IN ('a', 'i')
    AND owned.refclassid = 'pg_class'::regclass AND owned.refobjsubid > 0
  UNION
  SELECT def.adrelid, def.adnum FROM pg_depend uses JOIN pg_attrdef def ON def.oid = uses.objid
  WHERE uses.classid = 'pg_attrdef'::regclass AND uses.refclassid = 'pg_class'::regclass AND uses.refobjid = c.oid
  ORDER BY 1, 2
) filled ON true
LEFT JOIN pg_attribute a ON a.attrelid = filled.relation AND a.attnum = filled.number
WHERE c.relpersistence <> 't'
"""


@dataclass(frozen=True)
class SequenceState:
    """A sequence and the column it fills, if any. `max_value`: the largest value both can hold."""

    name: str
    table_name: str | None
    column_name: str | None
    column_type: str | None
    last_value: float | None
    readable: bool
    ascending: bool
    start_value: float
    min_value: float
    max_value: float
    cycle: bool

    @property
    def percent(self) -> float:
        """The share of its values that is used; a cycling sequence has no end."""
        if self.last_value is None or self.cycle:
            return 0.0
        if self.ascending:
            return 100 * (self.last_value - self.min_value) / (self.max_value - self.min_value)
        return 100 * (self.max_value - self.last_value) / (self.max_value - self.min_value)


@dataclass(frozen=True)
class Sequences(Reading):
    """The most used first."""

    sequences: tuple[SequenceState, ...]

    @property
    def unreadable(self) -> int:
        return sum(not sequence.readable for sequence in self.sequences)

    def numbers(self) -> Mapping[str, float]:
        return {"most used sequence (%)": self.sequences[0].percent if self.sequences else 0.0}

    def rows(self) -> Sequence[Row]:
        return [
            {
                "sequence": one.name,
                "fills": f"{one.table_name}.{one.column_name} {one.column_type}" if one.table_name else "",
                "last value": one.last_value,
                "end": one.max_value if one.ascending else one.min_value,
                "used (%)": round(one.percent, 2),
            }
            for one in self.sequences[:20]
        ]


def _read(session: ProbeSession) -> Sequences:
    found = session.read(SequenceState, _SEQUENCES)
    reading = Sequences(tuple(sorted(found, key=lambda one: -one.percent)))
    if found and reading.unreadable == len(found):
        raise CannotTell(
            Cause.RIGHT,
            f"The role {session.server.role} may not read the last values of sequences.",
            "grant it SELECT on sequences; it still cannot read rows",
            (
                session.grant("SELECT ON ALL SEQUENCES IN SCHEMA public"),
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA public {session.grant('SELECT ON SEQUENCES')}",
            ),
        )
    return reading


def judge(reading: Sequences, thresholds: Thresholds) -> Answer:
    if not reading.sequences:
        return answer(Outcome.OK, "none")
    worst = reading.sequences[0]
    hidden = f", {reading.unreadable} hidden from this role" if reading.unreadable else ""
    summary = (
        f"{format_count(len(reading.sequences), 'sequence')}; {worst.name} has used {worst.percent:.1f} % of its values"
        f"{hidden}"
    )
    status = thresholds.status(worst.percent)
    if status is Outcome.OK:
        return answer(status, summary)
    if worst.table_name and worst.column_type != "bigint":
        return answer(
            status,
            f"{summary}: {worst.table_name}.{worst.column_name} is {worst.column_type}",
            "widen the column (this rewrites and locks the table) and the sequence: at its end every INSERT fails",
            (
                f"ALTER TABLE {worst.table_name} ALTER COLUMN {worst.column_name} TYPE bigint;",
                f"ALTER SEQUENCE {worst.name} AS bigint;",
            ),
        )
    return answer(
        status,
        summary,
        "raise its limit, if the column it fills can hold more: at its end nextval fails",
        (f"ALTER SEQUENCE {worst.name} AS bigint NO MAXVALUE;",),
    )


SEQUENCES = Probe(
    "sequences",
    Area.SCHEMA,
    "Sequences that run out of values",
    "used share of the most used sequence",
    Thresholds(75, 90, "%"),
    _read,
    judge,
)
