"""The evidence as a page that a person reads: one file, nothing fetched from anywhere, fit for print."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from tmi_ops.recovery.drill.evidence import Evidence
from tmi_ops.recovery.drill.words import duration_words, size_words

# The pictures are drawn in these units; the browser scales them.
WIDTH, LEFT, RIGHT = 1000.0, 20.0, 980.0
NARROWEST = 3.0
FAR = 4.0
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
OTHER_COLOUR = "#dc2626"


@dataclass(frozen=True)
class Mark:
    """A moment in the picture of the recovery window. `x` in its units."""

    x: float
    label: str
    kind: str


@dataclass(frozen=True)
class Bar:
    """A phase in the picture of the recovery time."""

    x: float
    width: float
    phase: str
    seconds: float
    colour: str


def evidence_page(evidence: Evidence) -> str:
    """HTML that stands alone."""
    return _template().render(
        evidence=evidence,
        marks=window_marks(evidence),
        bars=phase_bars(evidence),
        objective_x=_on_scale(evidence.rto_objective_seconds, _longest(evidence)),
        left=LEFT,
        right=RIGHT,
    )


def window_marks(evidence: Evidence) -> list[Mark]:
    """The bases, the target and the newest moment, on one line of time."""
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
        Mark(x(window.newest_at), f"newest moment in the store, {_moment(window.newest_at)}", "newest"),
        Mark(x(evidence.started_at), f"the drill began, {_moment(evidence.started_at)}", "began"),
        Mark(x(target), f"target: {evidence.target.words}", "target"),
    ]


def phase_bars(evidence: Evidence) -> list[Bar]:
    """The phases one after the other, on a scale that ends at the objective or, if it was missed, after it."""
    longest = _longest(evidence)
    bars, at = [], 0.0
    for phase, spent in evidence.phases.items():
        x = _on_scale(at, longest)
        width = max(NARROWEST if spent > 0 else 0.0, _on_scale(at + spent, longest) - x)
        bars.append(Bar(x, width, phase, spent, COLOURS.get(phase, OTHER_COLOUR)))
        at += spent
    return bars


def _longest(evidence: Evidence) -> float:
    # Far below its objective a drill would be a dot: then the objective lies outside of the picture.
    total = max(sum(evidence.phases.values()), 0.001)
    objective = evidence.rto_objective_seconds
    return max(total, objective) if objective <= FAR * total else total


def _on_scale(seconds: float, longest: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(1.2, seconds / longest)


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "none"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tmi_ops.recovery.drill", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration_words, "size": size_words, "moment": _moment}
    return environment.get_template("page.html.jinja")
