"""The checks that the profile itself defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.own_checks import OwnAnswer, ask_own_checks

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession


@dataclass(frozen=True)
class OwnChecks(Reading):
    """In the profile's order."""

    answers: tuple[OwnAnswer, ...]

    def of(self, outcome: str) -> tuple[OwnAnswer, ...]:
        return tuple(one for one in self.answers if one.outcome == outcome)

    def numbers(self) -> Mapping[str, float]:
        return {"own checks": len(self.answers), "own checks failed": len(self.of("failed"))}

    def rows(self) -> Sequence[Row]:
        return [{"check": one.name, "outcome": one.outcome, "what": one.text} for one in self.answers]


def _read(session: ProbeSession) -> OwnChecks:
    return OwnChecks(ask_own_checks(session.reader or session.postgres, session.profile.checks, session.timeout_s))


def judge_own_checks(reading: OwnChecks, thresholds: Thresholds) -> Answer:
    failed, unknown = reading.of("failed"), reading.of("unknown")
    status = thresholds.status(len(failed))
    if status is not Outcome.OK:
        said = format_list([f"{one.name}: {one.text}" for one in failed], 3)
        return answer(status, f"{format_count(len(failed), 'check')} failed: {said}")
    if unknown:
        said = format_list([f"{one.name} {one.text}" for one in unknown], 3)
        return answer(
            Outcome.UNKNOWN,
            said,
            "set TMI_OPS_BACKUP_USER to an ordinary role that may read the tables of the checks and nothing else",
        )
    return answer(Outcome.OK, f"{format_count(len(reading.answers), 'check')} passed")


OWN_CHECKS = Probe(
    "own_checks",
    Area.SCHEMA,
    "The application's own checks, from its profile",
    "checks that failed",
    Thresholds(None, 1, "checks"),
    _read,
    judge_own_checks,
    fits=attrgetter("checks"),
)
