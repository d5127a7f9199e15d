"""The evidence as one printable HTML file without external references."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.drill.evidence import Evidence
from tmi_ops.recovery.pages.templates import LEFT, RIGHT, Bar, bars_of, format_moment, objective_x, page_template

COLOURS: dict[str, str] = {
    "plan": "#94a3b8",
    "prepare": "#94a3b8",
    "fetch": "#3b82f6",
    "extract": "#6366f1",
    "combine": "#8b5cf6",
    "check files": "#a855f7",
    "replay": "#f59e0b",
    "promote": "#f97316",
    "sync": "#64748b",
    "start": "#0ea5e9",
    "verify": "#10b981",
}


@dataclass(frozen=True)
class Mark:
    """A point in the drawing of the recovery window; `x` in its units."""

    x: float
    label: str
    kind: str


def evidence_page(evidence: Evidence) -> str:
    """A self-contained HTML page."""
    return page_template("tmi_ops.drill").render(
        evidence=evidence,
        marks=window_marks(evidence),
        bars=phase_bars(evidence),
        objective_x=objective_x(evidence.phases, evidence.rto_objective_seconds),
        left=LEFT,
        right=RIGHT,
    )


def window_marks(evidence: Evidence) -> list[Mark]:
    """The base backups, the target and the newest recovery point on one time line."""
    window = evidence.window
    copied = evidence.copy_.last_commit_at if evidence.copy_ else None
    target = evidence.target.time or copied or window.newest_at
    first = min(window.earliest_at, target)
    last = max(window.newest_at, target, evidence.started_at)
    span = max(last - first, timedelta(seconds=1))

    def x(moment: datetime) -> float:
        return LEFT + (RIGHT - LEFT) * ((moment - first) / span)

    bases = [
        Mark(x(base.taken_at), f"{base.format} base backup {base.backup_id}", base.format) for base in window.bases
    ]
    return [
        *bases,
        Mark(x(window.newest_at), f"newest recovery point, {format_moment(window.newest_at)}", "newest"),
        Mark(x(evidence.started_at), f"start of the drill, {format_moment(evidence.started_at)}", "began"),
        Mark(x(target), f"target: {evidence.target.text}", "target"),
    ]


def phase_bars(evidence: Evidence) -> list[Bar]:
    """The phases in order, drawn against the recovery time objective."""
    return bars_of(evidence.phases, evidence.rto_objective_seconds, COLOURS)
