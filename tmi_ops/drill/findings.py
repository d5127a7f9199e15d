"""The answer of one check, before it has a name and a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tmi_ops.drill.evidence import CheckOutcome
from tmi_ops.errors import OpsError, ProgramError


@dataclass(frozen=True)
class Found:
    """What a check says: a sentence, and what is wrong or worth knowing."""

    outcome: CheckOutcome
    detail: str
    findings: tuple[str, ...] = ()

    @classmethod
    def passed(cls, detail: str, notes: Sequence[str] = ()) -> Found:
        """Nothing speaks against the copy."""
        return cls("passed", detail, tuple(notes))

    @classmethod
    def failed(cls, detail: str, findings: Sequence[str] = ()) -> Found:
        """The copy is not what it should be."""
        return cls("failed", detail, tuple(findings))

    @classmethod
    def not_run(cls, detail: str) -> Found:
        """The question could not be asked here; the detail says why."""
        return cls("not run", detail)


def answer_to(question: Callable[[], Found]) -> Found:
    """What is found, also where the asking fails: for want of a program it was not run, else it failed."""
    try:
        return question()
    except ProgramError as error:
        return Found.not_run(error.what)
    except OpsError as error:
        return Found.failed(error.what)
