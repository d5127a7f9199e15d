"""The schema compared with TMI's models: steps a migration would take, and differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession
    from tmi_ops.schema.findings import Deviation

# A monitoring role cannot read rows on purpose, and objects that TMI's models do not define are harmless.
_HARMLESS = ("unreadable_table", "extra_table", "extra_column", "extra_index", "extra_constraint", "extra_object")


@dataclass(frozen=True)
class Migration(Reading):
    """Steps `tmi-ops migrate` would take, and steps it would leave to a person."""

    steps: tuple[str, ...]
    blocked: tuple[str, ...]

    def numbers(self) -> Mapping[str, float]:
        return {"migration steps to take": len(self.steps), "steps left to a person": len(self.blocked)}

    def rows(self) -> Sequence[Row]:
        return [
            *({"step": step, "state": "to take"} for step in self.steps),
            *({"step": step, "state": "left to a person"} for step in self.blocked),
        ]


@dataclass(frozen=True)
class SchemaFinding:
    """A finding of `tmi-ops check`: ERROR or WARN."""

    level: str
    rule: str
    subject: str
    message: str


@dataclass(frozen=True)
class SchemaFindings(Reading):
    """The worst first."""

    findings: tuple[SchemaFinding, ...]

    @property
    def errors(self) -> int:
        return self._count("ERROR")

    @property
    def warnings(self) -> int:
        return self._count("WARN")

    @property
    def judged(self) -> tuple[SchemaFinding, ...]:
        return tuple(finding for finding in self.findings if finding.rule not in _HARMLESS)

    def _count(self, level: str) -> int:
        return sum(finding.level == level for finding in self.judged)

    def numbers(self) -> Mapping[str, float]:
        return {"schema errors": self.errors, "schema warnings": self.warnings}

    def rows(self) -> Sequence[Row]:
        return [{"level": f.level, "rule": f.rule, "where": f.subject, "what": f.message} for f in self.findings]


def _read_migration(session: ProbeSession) -> Migration:
    from tmi_ops.schema.migration_plan import plan_from
    from tmi_ops.schema.rendering import render

    plan = plan_from(session.schema, seed=False)
    return Migration(
        steps=tuple(render(operation).summary for operation in plan.operations),
        blocked=tuple(f"{one.table}: {one.name}: {one.reason}" for one in plan.blocked),
    )


def judge_migration(reading: Migration, thresholds: Thresholds) -> Answer:
    if not reading.steps and not reading.blocked:
        return answer(Outcome.OK, "the schema is up to date")
    waiting = f", {len(reading.blocked)} left to a person" if reading.blocked else ""
    summary = f"{format_count(len(reading.steps), 'step')} to take{waiting}"
    status = thresholds.status(len(reading.steps))
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        f"{summary}: {format_list(reading.steps, 2)}",
        "migrate the schema: this works online and drops nothing",
        ("tmi-ops migrate --dry-run", "tmi-ops migrate"),
    )


def _read_findings(session: ProbeSession) -> SchemaFindings:
    from tmi_ops.schema.findings import find_all

    return reading_of(find_all(session.schema))


def reading_of(findings: Iterable[Deviation]) -> SchemaFindings:
    """The probe's reading, made of these findings."""
    return SchemaFindings(
        tuple(
            SchemaFinding(one.level, one.rule.value, ".".join(filter(None, (one.table, one.object))), one.message)
            for one in findings
            if one.level in ("ERROR", "WARN")
        )
    )


def judge_findings(reading: SchemaFindings, thresholds: Thresholds) -> Answer:
    extra = len(reading.findings) - len(reading.judged)
    also = f"; {extra} not in TMI's models or not readable" if extra else ""
    if not reading.judged:
        return answer(Outcome.OK, f"matches what TMI needs{also}")
    by_rule = Counter(finding.rule.replace("_", " ") for finding in reading.judged)
    kinds = format_list([f"{count} {rule}" for rule, count in by_rule.most_common()])
    status = thresholds.status(reading.errors) if reading.errors else Outcome.WARNING
    return answer(
        status,
        f"{format_count(reading.errors, 'error')}, {format_count(reading.warnings, 'warning')}: {kinds}{also}",
        f"{reading.judged[0].subject}: {reading.judged[0].message}",
        ("tmi-ops check", "tmi-ops migrate --dry-run"),
    )


MIGRATION = Probe(
    "migration",
    Area.SCHEMA,
    "Pending migration: steps `tmi-ops migrate` would take",
    "steps to take",
    Thresholds(1, None, "steps"),
    _read_migration,
    judge_migration,
    fits=attrgetter("has_models"),
)
SCHEMA_FINDINGS = Probe(
    "schema_findings",
    Area.SCHEMA,
    "Differences from the schema TMI needs",
    "findings of level ERROR; level WARN is a warning, except for objects the models do not define",
    Thresholds(None, 1, "errors"),
    _read_findings,
    judge_findings,
    fits=attrgetter("has_models"),
)
