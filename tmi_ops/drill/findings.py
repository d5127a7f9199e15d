"""The results of a drill's checks, and how the evidence stores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from tmi_ops.checks.finding import Answer, Finding, Outcome, Severity, unknown
from tmi_ops.errors import OpsError, ProgramError

# Stored by drills, recoveries and shadows; earlier releases read them.
CheckOutcome = Literal["passed", "failed", "not run", "not applicable"]
STORED: dict[Outcome, CheckOutcome] = {
    Outcome.OK: "passed",
    Outcome.WARNING: "failed",
    Outcome.CRITICAL: "failed",
    Outcome.UNKNOWN: "not run",
    Outcome.SKIPPED: "not run",
    Outcome.NOT_APPLICABLE: "not applicable",
}


def passed(detail: str, notes: Sequence[str] = ()) -> Answer:
    """The check found nothing wrong."""
    return Answer(detail, tuple(Finding(Severity.NOTICE, "", note) for note in notes))


def failed(detail: str, findings: Sequence[str] = ()) -> Answer:
    """The check found the copy wrong."""
    return Answer(detail, tuple(Finding(Severity.CRITICAL, "", one) for one in findings or (detail,)))


def said(answer: Answer) -> tuple[str, ...]:
    """The findings, one sentence each, without the summary."""
    return tuple(one.what for one in answer.findings if one.what != answer.seen)


def answer_to(question: Callable[[], Answer]) -> Answer:
    """Run a check. It counts as not run when a PostgreSQL program is missing, and as failed on other errors."""
    try:
        return question()
    except ProgramError as error:
        return unknown(error.message)
    except OpsError as error:
        return failed(error.message)
