"""The evidence page of a run, styled like a drill's."""

from __future__ import annotations

from tmi_ops.recovery.pages.bars import RIGHT, bars_of, objective_x
from tmi_ops.recovery.pages.templates import page_template
from tmi_ops.runbooks.evidence import RunEvidence
from tmi_ops.runbooks.journal import shown

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
