"""The last answer of every probe, stored beside the last reading, for `tmi-ops status`.

Written by the hourly examination and `tmi-ops health`; for the schema also by `tmi-ops check`, every migration and the
sensor that looks for drift. A run of some probes leaves the answers of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.checks.finding import Answer, Outcome, worst_outcome
from tmi_ops.errors import StoreError
from tmi_ops.health.answer import PROBE_OUTCOMES
from tmi_ops.health.last_reading import SavedText, open_saved_text
from tmi_ops.health.probes.schema import SCHEMA_FINDINGS, judge_findings, reading_of
from tmi_ops.health.thresholds import overridden

if TYPE_CHECKING:
    from tmi_ops.schema.findings import Deviation
    from tmi_ops.settings import Settings

NAME = "last-verdicts.json"


class LastAnswer(BaseModel):
    """The last answer of a probe, and when it was given."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Outcome
    summary: str
    advice: str = ""
    at: AwareDatetime


class LastAnswers(BaseModel):
    """By the name of the probe, in the order they run; never empty."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    version: int = 1
    answers: Mapping[str, LastAnswer] = Field(alias="verdicts")

    @property
    def status(self) -> Outcome:
        """The worst status, leaving out unknown ones; unknown if all are."""
        known = [one.status for one in self.answers.values() if one.status is not Outcome.UNKNOWN]
        return worst_outcome(known) if known else Outcome.UNKNOWN

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """The number of probes of each status; the worst first."""
        counted = Counter(one.status for one in self.answers.values())
        return {status: counted[status] for status in reversed(PROBE_OUTCOMES)}

    @property
    def oldest_at(self) -> datetime:
        """When the oldest of the answers was given."""
        return min(one.at for one in self.answers.values())

    @property
    def schema_findings(self) -> LastAnswer | None:
        """The answer on the schema; None: it was not checked yet."""
        return self.answers.get(SCHEMA_FINDINGS.name)

    def at(self, status: Outcome) -> Mapping[str, LastAnswer]:
        """The probes of one status."""
        return {name: one for name, one in self.answers.items() if one.status is status}


def last_answers(saved: SavedText) -> LastAnswers | None:
    """The recorded answers; None: there are none, or they cannot be read."""
    try:
        text = saved.beside(NAME).get()
        found = LastAnswers.model_validate_json(text) if text else None
    except (StoreError, OSError, ValidationError):
        return None
    return found if found is not None and found.answers else None


def record_answers(saved: SavedText, answers: Mapping[str, Answer], *, whole: bool = False) -> bool:
    """Record answers for the status screen; False if they could not be stored.

    Args:
        whole: drop the answers of all other probes: they are not run any more.
    """
    now = datetime.now(UTC)
    known = None if whole else last_answers(saved)
    new = {
        name: LastAnswer(status=one.outcome, summary=one.seen, advice=next(iter(one.advice.steps), ""), at=now)
        for name, one in answers.items()
    }
    kept = LastAnswers(answers={**(known.answers if known else {}), **new})
    try:
        saved.beside(NAME).put(kept.model_dump_json().encode())
    except (StoreError, OSError):
        return False
    return True


def record_schema(settings: Settings, variables: Mapping[str, str], findings: Sequence[Deviation]) -> bool:
    """Record the answer on the schema, judged as the probe judges it.

    Args:
        variables: of the environment (`settings.read_variables`); they may override the probe's thresholds.

    Raises:
        SettingsError: a threshold is malformed.
    """
    limits = overridden({SCHEMA_FINDINGS.name: SCHEMA_FINDINGS.thresholds}, variables)[SCHEMA_FINDINGS.name]
    answer = judge_findings(reading_of(findings), limits)
    return record_answers(open_saved_text(settings), {SCHEMA_FINDINGS.name: answer})
