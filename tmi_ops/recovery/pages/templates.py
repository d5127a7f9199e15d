"""Loads page templates and their shared parts.

Phases are drawn as bars, on a scale that ends at the objective or, if it was missed, after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tmi_ops.text import format_duration, format_size, printable

# Units of the drawing; the browser scales them.
LEFT, RIGHT = 20.0, 980.0
NARROWEST = 3.0
FAR = 4.0
OTHER_COLOUR = "#dc2626"


@dataclass(frozen=True)
class Bar:
    """The bar of a phase. `x` and `width` in units of the drawing."""

    x: float
    width: float
    phase: str
    seconds: float
    colour: str


def bars_of(phases: Mapping[str, float], objective: float, colours: Mapping[str, str]) -> list[Bar]:
    """One bar per phase, in order. Durations in seconds."""
    longest = _longest(phases, objective)
    bars, at = [], 0.0
    for phase, spent in phases.items():
        x = _on_scale(at, longest)
        width = max(NARROWEST if spent > 0 else 0.0, _on_scale(at + spent, longest) - x)
        bars.append(Bar(x, width, phase, spent, colours.get(phase, OTHER_COLOUR)))
        at += spent
    return bars


def objective_x(phases: Mapping[str, float], objective: float) -> float:
    """Position of the objective in the drawing; beyond RIGHT if it is far away."""
    return _on_scale(objective, _longest(phases, objective))


def _longest(phases: Mapping[str, float], objective: float) -> float:
    # If the objective is so far away that the recovery would be a dot, it is left outside the drawing.
    total = max(sum(phases.values()), 0.001)
    return max(total, objective) if objective <= FAR * total else total


def _on_scale(seconds: float, longest: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(1.2, seconds / longest)


@cache
def page_template(package: str, name: str = "page.html.jinja") -> Template:
    """The template `name` of a package; it may import `parts.html.jinja`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("tmi_ops.recovery.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": format_duration, "size": format_size, "moment": format_moment}
    return environment.get_template(name)


def _shown(value: object) -> object:
    """Make a value printable before it is escaped for HTML; output of macros is escaped already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def format_moment(moment: datetime | None) -> str:
    """`2026-11-24 03:44:13 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "none"
