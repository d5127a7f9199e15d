"""How a diagnosis looks in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.text import Text

from tmi_ops.cli.terminal import out
from tmi_ops.diagnosis.finding import Area, Diagnosis, Finding, Outcome, Step

_MARKS = {
    Outcome.OK: ("✓", "green"),
    Outcome.WARNING: ("!", "yellow"),
    Outcome.FAILED: ("✗", "bold red"),
    Outcome.SKIPPED: ("-", "dim"),
    Outcome.UNKNOWN: ("?", "magenta"),
}
_TITLE_WIDTH = 28


def watch_steps(*, verbose: bool) -> Callable[[Step], None]:
    """Prints a line for each step as it is made, below its area's name; with `verbose` each finding's fix, too."""
    shown: list[Area] = []

    def show(step: Step) -> None:
        if step.area not in shown:
            out.print(Text(f"{'' if not shown else chr(10)}{step.area.value}", style="bold"))
            shown.append(step.area)
        mark, style = _MARKS[step.outcome]
        line = Text("  ").append(mark, style=style).append(f" {step.title:<{_TITLE_WIDTH}} ")
        line.append(step.finding.seen, style="dim" if step.outcome is Outcome.SKIPPED else "")
        out.print(line, soft_wrap=True)
        if verbose and (step.finding.cause or step.finding.fix):
            _print_lines(_cause_and_fix(step.finding), indent=4)

    return show


def show_close(diagnosis: Diagnosis) -> None:
    """The first cause with what mends it in a box, then how many findings there are besides."""
    cause = diagnosis.root_cause
    out.print()
    if cause is None:
        blind = diagnosis.at(Outcome.UNKNOWN)
        words = f"Nothing broken was seen; {len(blind)} links could not be looked at." if blind else "All is well."
        out.print(Text(words, style="magenta" if blind else "bold green"))
        return
    broken = cause.outcome is Outcome.FAILED
    style = "red" if broken else "yellow"
    title = Text(f"{'The cause' if broken else 'Worth mending'}: {cause.title}", style=f"bold {style}")
    # Open at the sides and never broken by us: what mends it is there to be copied.
    out.rule(title, align="left", style=style)
    _print_lines([Text(cause.finding.seen, style="bold"), *_cause_and_fix(cause.finding)])
    out.rule(style=style)
    others = _others(diagnosis, cause)
    out.print(Text(others if others else "Nothing else was found.", style="dim"))


def _cause_and_fix(finding: Finding) -> Iterator[Text]:
    if finding.cause:
        yield Text(finding.cause)
    if finding.fix:
        yield Text("to mend it:", style="dim")
    for line in finding.fix:
        yield Text(f"  {line}", style="cyan")


def _print_lines(lines: Iterable[Text], *, indent: int = 0) -> None:
    for line in lines:
        out.print(Text(" " * indent) + line, soft_wrap=True)


def _others(diagnosis: Diagnosis, cause: Step) -> str:
    parts = []
    for outcome, word in ((Outcome.FAILED, "broken"), (Outcome.WARNING, "warnings"), (Outcome.UNKNOWN, "not seen")):
        names = [step.title for step in diagnosis.at(outcome) if step is not cause]
        if names:
            parts.append(f"{word}: {', '.join(names)}")
    hidden = [step for step in diagnosis.steps if step.because == cause.name]
    if hidden:
        parts.append(f"{len(hidden)} links wait for this one")
    return f"Besides, {'; '.join(parts)}. `tmi-ops doctor -v` shows how to mend each." if parts else ""


def as_facts(diagnosis: Diagnosis) -> dict[str, Any]:
    """The whole diagnosis for `--json`."""
    cause = diagnosis.root_cause
    return {
        "environment": diagnosis.environment,
        "taken_at": diagnosis.taken_at.isoformat(),
        "healthy": diagnosis.healthy,
        "root_cause": cause.name if cause else None,
        "steps": [
            {"name": step.name, "title": step.title, "area": step.area.value, "because": step.because}
            | asdict(step.finding)
            for step in diagnosis.steps
        ],
    }
