"""What a check says. Health, doctor, roles, cache and drills differ in what they ask, not in how they answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is. NOTICE: worth knowing. WARNING: to be mended. CRITICAL: something does not work, is not
    safe, or soon will not be."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Outcome(StrEnum):
    """How a check ended. UNKNOWN: nobody could look, which is not well. NOT_APPLICABLE: there is nothing to look at."""

    OK = "ok"
    NOT_APPLICABLE = "not applicable"
    UNKNOWN = "unknown"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Outcome).index(self)


@dataclass(frozen=True)
class Advice:
    """What helps: a sentence, SQL and shell commands as they can be pasted."""

    text: str = ""
    sql: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        return (*((self.text,) if self.text else ()), *self.sql, *self.command)

    def __bool__(self) -> bool:
        return bool(self.lines())


NOTHING = Advice()


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        subject: what it is about: a role, an index, a schedule.
        what: one sentence without its full stop.
        cause: why it is so, where that is known and not obvious.
    """

    severity: Severity
    subject: str
    what: str
    cause: str = ""
    advice: Advice = NOTHING


@dataclass(frozen=True)
class Result:
    """The answer of one check.

    Attributes:
        name: stable; it names the check to programs.
        seen: what is there, one line.
        findings: what is wrong with it, the worst first.
        untold: why nobody could look; empty where somebody did.
        not_applicable: why there is nothing to look at; empty where there is.
    """

    name: str
    title: str
    seen: str
    findings: tuple[Finding, ...] = field(default=())
    untold: str = ""
    not_applicable: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.not_applicable:
            return Outcome.NOT_APPLICABLE
        if self.untold:
            return Outcome.UNKNOWN
        severity = worst(self.findings)
        if severity in (None, Severity.NOTICE):
            return Outcome.OK
        return Outcome.CRITICAL if severity is Severity.CRITICAL else Outcome.WARNING


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity among them; None of none."""
    return max((one.severity for one in findings), key=lambda one: one.rank, default=None)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: -one.severity.rank))
