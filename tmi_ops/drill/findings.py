"""The answer of a drill's check: made by the vocabulary of all checks, kept in the words of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Finding, Outcome, Severity, unknown
from tmi_ops.errors import OpsError, ProgramError

if TYPE_CHECKING:
    from tmi_ops.drill.evidence import CheckOutcome

# As evidence is stored, and read by releases before this one.
STORED: dict[Outcome, CheckOutcome] = {
    Outcome.OK: "passed",
    Outcome.WARNING: "failed",
    Outcome.CRITICAL: "failed",
    Outcome.UNKNOWN: "not run",
    Outcome.SKIPPED: "not run",
    Outcome.NOT_APPLICABLE: "not applicable",
}


def passed(detail: str, notes: Sequence[str] = ()) -> Answer:
    """Nothing speaks against the copy."""
    return Answer(detail, tuple(Finding(Severity.NOTICE, "", note) for note in notes))


def failed(detail: str, findings: Sequence[str] = ()) -> Answer:
    """The copy is not what it should be."""
    return Answer(detail, tuple(Finding(Severity.CRITICAL, "", one) for one in findings or (detail,)))


def said(answer: Answer) -> tuple[str, ...]:
    """What was found, a sentence each, beside the answer itself."""
    return tuple(one.what for one in answer.findings if one.what != answer.seen)


def answer_to(question: Callable[[], Answer]) -> Answer:
    """What is found, also where the asking fails: for want of a program it was not run, else it failed."""
    try:
        return question()
    except ProgramError as error:
        return unknown(error.message)
    except OpsError as error:
        return failed(error.message)
