"""The result of a probe: a reading, and the answer that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from tmi_ops.checks.finding import Answer, Outcome, advise, judged

Row = Mapping[str, Any]


# The outcomes of a probe: it always has something to look at, so NOT_APPLICABLE and SKIPPED are not among them.
PROBE_OUTCOMES = (Outcome.OK, Outcome.UNKNOWN, Outcome.WARNING, Outcome.CRITICAL)


class Cause(StrEnum):
    """Why the outcome of a probe is unknown."""

    RIGHT = "right"  # the role lacks a privilege
    EXTENSION = "extension"  # an extension or a setting of the server is missing
    TOO_EARLY = "too early"  # a rate needs a second reading; nothing to do
    NOT_VISIBLE = "not visible"  # it cannot be seen from this machine
    REFUSED = "refused"  # the query failed or took too long


class CannotTell(Exception):
    """Raised by a probe that cannot read what it needs; that probe alone becomes UNKNOWN.

    Args:
        what: why, one sentence.
        advice: what to do about it, one sentence.
        remedy: the exact SQL or settings.
    """

    def __init__(self, cause: Cause, what: str, advice: str = "", remedy: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.cause = cause
        self.what = what
        self.advice = advice
        self.remedy = tuple(remedy)


def answer(outcome: Outcome, summary: str, advice: str = "", remedy: Sequence[str] = ()) -> Answer:
    """The answer of a probe that has a reading.

    Args:
        summary: the reading in human units, one line.
        advice: what to do, one line; may be empty if the outcome is OK.
        remedy: the exact SQL, settings or commands, ready to paste.
    """
    return judged(outcome, summary, advice=advise(advice, *remedy))


@dataclass(frozen=True)
class Reading:
    """What a probe's query returned: facts only."""

    def numbers(self) -> Mapping[str, float]:
        """The figures to plot over runs, by a name that includes the unit."""
        return {}

    def rows(self) -> Sequence[Row]:
        """The table behind the figure, the most important rows first."""
        return ()


def as_row(item: Any, **renamed: Any) -> Row:
    """The fields of a dataclass as a table row; `renamed` adds or replaces fields."""
    return {field.name: getattr(item, field.name) for field in fields(item)} | renamed
