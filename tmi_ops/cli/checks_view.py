"""How results and findings of all checks look in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from tmi_ops.checks.finding import Answer, Finding, Outcome, Result, Severity, is_typed
from tmi_ops.cli.terminal import first_of, out

MARKS = {
    Outcome.OK: ("✓", "green"),
    Outcome.NOT_APPLICABLE: ("-", "dim"),
    Outcome.SKIPPED: ("-", "dim"),
    Outcome.UNKNOWN: ("?", "magenta"),
    Outcome.WARNING: ("!", "yellow"),
    Outcome.CRITICAL: ("✗", "bold red"),
}
SEVERITY_MARKS = {
    Severity.NOTICE: ("·", "dim"),
    Severity.WARNING: MARKS[Outcome.WARNING],
    Severity.CRITICAL: MARKS[Outcome.CRITICAL],
}
FINDINGS_SHOWN = 60
# Of many steps for one finding, the first show what the others are like.
STEPS_SHOWN = 8
_TITLE_WIDTH = 28
_DIM = (Outcome.NOT_APPLICABLE, Outcome.SKIPPED)
Shown = Literal["nothing", "hint", "all"]


def show_result(result: Result, *, advice: Shown = "nothing", title: str = "") -> None:
    """A line for the result, and below it the advice.

    Args:
        advice: none, the first step as a hint if the result is not OK, or causes and all steps.
        title: shown instead of the own title of the result.
    """
    answer = result.answer
    mark, style = MARKS[result.outcome]
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=3)
    line.add_column(width=_TITLE_WIDTH)
    line.add_column(overflow="fold")
    seen = Text(answer.seen, style="dim" if result.outcome in _DIM else "")
    if advice == "hint" and result.outcome is not Outcome.OK and answer.advice:
        seen.append(f"\n→ {answer.advice.steps[0]}", style=style)
    line.add_row(Text(f"  {mark}", style=style), Text(title or result.title), seen)
    out.print(line)
    if advice == "all":
        print_lines(explained(answer), indent=4)


def explained(answer: Answer) -> Iterator[Text]:
    """Findings that say more than the answer, their causes, and how to fix them."""
    for finding in answer.findings:
        if finding.what != answer.seen:
            subject = f"{finding.subject}: " if finding.subject else ""
            yield Text(f"{subject}{finding.what}")
        if finding.cause:
            yield Text(finding.cause)
        if finding.advice:
            yield Text("to fix it:", style="dim")
        yield from (Text(f"  {step}", style="cyan") for step in finding.advice.steps)


def show_findings(findings: Sequence[Finding], limit: int = FINDINGS_SHOWN) -> None:
    """Findings in the order given, each with its advice; at most `limit`."""
    shown, more = first_of(findings, limit)
    for finding in shown:
        mark, style = SEVERITY_MARKS[finding.severity]
        line = Text.assemble((mark, style), " ", (finding.subject, "bold"), ": " if finding.subject else "")
        out.say(line.append(finding.what), hang=2)
        steps, others = finding.advice.steps[:STEPS_SHOWN], len(finding.advice.steps) - STEPS_SHOWN
        lines = [*([finding.cause] if finding.cause else []), *steps, *([f"and {others} more"] if others > 0 else [])]
        print_lines((Text(line, style="dim") for line in lines), indent=4)
    if more:
        out.print(Text(more, style="dim"))


def print_lines(lines: Iterable[Text], *, indent: int = 0) -> None:
    """Print sentences wrapped, and SQL and commands whole, so that they can be copied."""
    for line in lines:
        indented = Text(" " * indent) + line
        if is_typed(line.plain.strip()):
            out.show_typed(indented)
        else:
            out.say(indented)


def show_comment(text: str, style: str = "dim") -> None:
    """A comment of a script for psql."""
    out.show_typed(Text(f"-- {text}", style=style))


def finding_facts(finding: Finding) -> dict[str, Any]:
    """For `--json`."""
    advice = finding.advice
    return {
        "severity": finding.severity.value,
        "subject": finding.subject,
        "what": finding.what,
        "cause": finding.cause,
        "advice": {"text": advice.text, "sql": list(advice.sql), "command": list(advice.command)},
    }


def result_facts(result: Result) -> dict[str, Any]:
    """For `--json`."""
    return {
        "name": result.name,
        "title": result.title,
        "area": result.area,
        "outcome": result.outcome.value,
        "seen": result.answer.seen,
        "because": result.because or None,
        "findings": [finding_facts(one) for one in result.answer.findings],
    }
