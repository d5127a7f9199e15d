"""What a recovery leaves behind: its record in the store, and the page that a person reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime

from tmi_ops import __version__
from tmi_ops.private import write_durably
from tmi_ops.progress import Report
from tmi_ops.recovery.pages.templates import RIGHT, bars_of, objective_x, page_template
from tmi_ops.runbooks.journal import Answer, Attempt, Consent, Journal, shown
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops.runbooks.plan import Fact, Plan

EVIDENCE, PAGE = "evidence.json", "evidence.html"


def record_evidence(journal: Journal, logbook: Logbook, report: Report) -> RunEvidence:
    """Write it on this machine, and to the store if that is reachable. May be repeated."""
    evidence = evidence_of(journal)
    for name, data in ((EVIDENCE, evidence_json(evidence)), (PAGE, evidence_page(evidence).encode())):
        write_durably(logbook.directory / name, data, mode=0o644)
        logbook.copy_to_store(name, data, report)
    return evidence


_COLOURS = ("#3b82f6", "#6366f1", "#8b5cf6", "#a855f7", "#f59e0b", "#f97316", "#0ea5e9", "#10b981", "#64748b")


def evidence_page(evidence: RunEvidence) -> str:
    """Self-contained HTML."""
    colours = {step: _COLOURS[number % len(_COLOURS)] for number, step in enumerate(evidence.phases)}
    last = {attempt.step: attempt for attempt in evidence.attempts}
    return page_template("tmi_ops.runbooks").render(
        evidence=evidence,
        bars=bars_of(evidence.phases, evidence.rto_objective_seconds, colours),
        objective_x=objective_x(evidence.phases, evidence.rto_objective_seconds),
        right=RIGHT,
        colours=colours,
        last=last,
        shown=shown,
        tries={step: sum(one.step == step for one in evidence.attempts) for step in last},
    )


class RunEvidence(Fact):
    """Durations in seconds. `phases`: per step in plan order, the sum of all attempts; `rto_seconds`: from the start to
    the end of the last step, including waits for an answer, without deferred steps; `left`: what a person must do."""

    format_version: Literal[1] = 1
    run_id: str
    environment: str
    host: str
    outcome: Literal["recovered", "taken back", "unfinished"]
    started_at: AwareDatetime
    ended_at: AwareDatetime
    written_at: AwareDatetime
    rto_seconds: float
    rto_objective_seconds: float
    plan: Plan
    phases: dict[str, float]
    attempts: tuple[Attempt, ...]
    answers: tuple[Answer, ...]
    consents: tuple[Consent, ...]
    left: tuple[str, ...] = ()
    tmi_ops_version: str = __version__

    @property
    def rto_met(self) -> bool:
        return self.outcome == "recovered" and self.rto_seconds <= self.rto_objective_seconds


def evidence_of(journal: Journal) -> RunEvidence:
    """The evidence of a run up to now."""
    outcomes: dict[str, Literal["recovered", "taken back"]] = {"done": "recovered", "taken back": "taken back"}
    spent = {step.name: 0.0 for step in journal.plan.steps if journal.last(step.name)}
    for attempt in journal.attempts:
        spent[attempt.step] += attempt.seconds
    return RunEvidence(
        run_id=journal.run_id,
        environment=journal.environment,
        host=journal.host,
        outcome=outcomes.get(journal.state, "unfinished"),
        started_at=journal.started_at,
        ended_at=journal.ended_at,
        written_at=datetime.now(UTC),
        rto_seconds=(journal.in_service_at - journal.started_at).total_seconds(),
        rto_objective_seconds=journal.rto_objective_seconds,
        plan=journal.plan,
        phases=spent,
        attempts=journal.attempts,
        answers=journal.answers,
        consents=journal.consents,
        left=journal.left,
    )


def evidence_json(evidence: RunEvidence) -> bytes:
    """The stored form."""
    return evidence.model_dump_json(indent=2).encode() + b"\n"
