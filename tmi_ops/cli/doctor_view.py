"""How a diagnosis looks in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text

from tmi_ops.checks.finding import Outcome, Result
from tmi_ops.cli.checks_view import explained, print_lines, result_facts, show_result
from tmi_ops.cli.terminal import out
from tmi_ops.diagnosis.finding import Diagnosis


def watch_results(*, verbose: bool) -> Callable[[Result], None]:
    """Print a line for each result as it arrives, below its area's name; with `verbose` also the fix."""
    shown: list[str] = []

    def show(result: Result) -> None:
        if result.area not in shown:
            out.print(Text(f"{'' if not shown else chr(10)}{result.area}", style="bold"))
            shown.append(result.area)
        show_result(result, advice="all" if verbose else "nothing")

    return show


def show_close(diagnosis: Diagnosis) -> None:
    """The root cause with its fix in a box, then the other findings in a line."""
    cause = diagnosis.root_cause
    out.print()
    if cause is None:
        blind = diagnosis.at(Outcome.UNKNOWN)
        words = f"Nothing is broken; {len(blind)} checks could not be done." if blind else "All is well."
        out.print(Text(words, style="magenta" if blind else "bold green"))
        return
    broken = cause.outcome is Outcome.CRITICAL
    style = "red" if broken else "yellow"
    title = Text(f"{'Root cause' if broken else 'Worth fixing'}: {cause.title}", style=f"bold {style}")
    # Open at the sides, so that the fix can be copied.
    out.rule(title, align="left", style=style)
    print_lines([Text(cause.answer.seen, style="bold"), *explained(cause.answer)])
    out.rule(style=style)
    others = _others(diagnosis, cause)
    out.print(Text(others if others else "Nothing else was found.", style="dim"))


def _others(diagnosis: Diagnosis, cause: Result) -> str:
    parts = []
    for outcome, word in ((Outcome.CRITICAL, "broken"), (Outcome.WARNING, "warnings"), (Outcome.UNKNOWN, "unknown")):
        names = [result.title for result in diagnosis.at(outcome) if result is not cause]
        if names:
            parts.append(f"{word}: {', '.join(names)}")
    hidden = [result for result in diagnosis.results if result.because == cause.name]
    if hidden:
        parts.append(f"{len(hidden)} checks skipped because of this")
    return f"Also: {'; '.join(parts)}. `tmi-ops doctor -v` shows how to fix each." if parts else ""


def as_facts(diagnosis: Diagnosis) -> dict[str, Any]:
    """The whole diagnosis for `--json`."""
    cause = diagnosis.root_cause
    return {
        "environment": diagnosis.environment,
        "taken_at": diagnosis.taken_at.isoformat(),
        "healthy": diagnosis.healthy,
        "root_cause": cause.name if cause else None,
        "checks": [result_facts(result) for result in diagnosis.results],
    }
