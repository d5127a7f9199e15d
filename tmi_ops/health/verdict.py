"""What a probe finds: a reading, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from tmi_ops.checks.finding import Answer, Outcome, advise, judged

Row = Mapping[str, Any]


# How a probe's answer may end: each has something to look at.
VERDICTS = (Outcome.OK, Outcome.UNKNOWN, Outcome.WARNING, Outcome.CRITICAL)


class Cause(StrEnum):
    """Why a probe could not tell."""

    RIGHT = "right"  # the role may not ask
    EXTENSION = "extension"  # an extension or a setting of the server is missing
    TOO_EARLY = "too early"  # a rate needs a second reading; it comes by itself
    NOT_VISIBLE = "not visible"  # it cannot be seen from where we stand
    REFUSED = "refused"  # the query failed or took too long


class CannotTell(Exception):
    """Raised by a probe that cannot read what it needs; that probe alone becomes UNKNOWN.

    Args:
        what: why, one sentence.
        advice: what would cure it, one sentence.
        remedy: the exact SQL or settings that cure it.
    """

    def __init__(self, cause: Cause, what: str, advice: str = "", remedy: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.cause = cause
        self.what = what
        self.advice = advice
        self.remedy = tuple(remedy)


def verdict(outcome: Outcome, summary: str, advice: str = "", remedy: Sequence[str] = ()) -> Answer:
    """The judgement of one reading.

    Args:
        summary: the reading in human units, one line.
        advice: what to do, one line; may be empty when all is well.
        remedy: the exact SQL, settings or commands that help, as they can be pasted.
    """
    return judged(outcome, summary, advice=advise(advice, *remedy))


@dataclass(frozen=True)
class Reading:
    """What a probe's query found: facts only."""

    def numbers(self) -> Mapping[str, float]:
        """What is worth plotting over runs, by a name that carries its unit."""
        return {}

    def rows(self) -> Sequence[Row]:
        """The table behind the figure, the most important first."""
        return ()


def as_row(item: Any, **renamed: Any) -> Row:
    """The fields of a dataclass as a table's row; `renamed` adds or replaces."""
    return {field.name: getattr(item, field.name) for field in fields(item)} | renamed
