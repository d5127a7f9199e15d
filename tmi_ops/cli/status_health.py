"""The lines about health and schema on the status screen: the last results and their age. Nothing is probed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.text import Text

from tmi_ops.alerts.alert import SCHEMA_DRIFT
from tmi_ops.checks.finding import Outcome
from tmi_ops.cli.status_marks import MARKS, ago
from tmi_ops.health.probes.schema import SCHEMA_FINDINGS
from tmi_ops.health.record import LastAnswers
from tmi_ops.health.registry import probes_of
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.status import Status
from tmi_ops.profile import Profile

STANDINGS = {
    Outcome.OK: Standing.MET,
    Outcome.UNKNOWN: Standing.UNKNOWN,
    Outcome.WARNING: Standing.AT_RISK,
    Outcome.CRITICAL: Standing.BREACHED,
}
# Dagster probes every hour; without Dagster nobody may have for a long time.
STALE_AFTER = timedelta(days=1)
_LOOKS = (("Health", "tmi-ops health"), ("Schema", "tmi-ops check"))


@dataclass(frozen=True)
class ToDo:
    """A row of the to-do list. `alerted_as`: the key of an alert about the same."""

    standing: Standing
    said: str
    command: str
    alerted_as: str = ""


def last_looks(status: Status) -> Iterator[tuple[str, Text]]:
    """The lines `Health` and `Schema`."""
    last, now = status.health, status.at
    if last is None:
        unknown = "unknown, the last results are in the store" if status.store_problem else "never checked"
        for label, command in _LOOKS if status.profile.has_models else _LOOKS[:1]:
            yield label, Text(f"{unknown}: {command}", style="yellow")
        return
    schema = last.schema_findings
    if list(last.answers.values()) == [schema]:
        yield "Health", Text("never checked: tmi-ops health", style="yellow")
    else:
        yield "Health", _look(last.status, _counts(last, status.profile), last.oldest_at, now)
    if not status.profile.has_models:
        return
    if schema is None:
        yield "Schema", Text("never checked: tmi-ops check", style="yellow")
    else:
        yield "Schema", _look(schema.status, schema.summary, schema.at, now)


def findings_of(last: LastAnswers | None, now: datetime) -> Iterator[ToDo]:
    """A row for each critical probe, and one for all warnings."""
    if last is None:
        return
    for name, one in last.at(Outcome.CRITICAL).items():
        age = ago(one.at, now)
        if name == SCHEMA_FINDINGS.name:  # its summary is above; its advice is the first finding
            yield ToDo(Standing.BREACHED, f"Schema, {age}: {one.advice}", "tmi-ops check", SCHEMA_DRIFT)
        else:
            advice = f". {one.advice}" if one.advice else ""
            said = f"{name}, {age}: {one.summary}{advice}"
            yield ToDo(Standing.BREACHED, said, f"tmi-ops health --probe {name}")
    warned = last.at(Outcome.WARNING)
    if warned:
        oldest = ago(min(one.at for one in warned.values()), now)
        yield ToDo(Standing.AT_RISK, f"Health warnings, {oldest}: {', '.join(warned)}", "tmi-ops health")


def _counts(last: LastAnswers, profile: Profile) -> str:
    counts = [f"{count} {outcome.value}" for outcome, count in last.counts.items() if count]
    not_asked = len({probe.name for probe in probes_of(profile)} - last.answers.keys())
    return ", ".join([*counts, *([f"{not_asked} not probed"] if not_asked else [])])


def _look(outcome: Outcome, said: str, at: datetime, now: datetime) -> Text:
    mark, style = MARKS[STANDINGS[outcome]]
    age = (f"checked {ago(at, now)}", "yellow" if now - at > STALE_AFTER else "")
    return Text.assemble((mark, style), f" {said}; ", age)
