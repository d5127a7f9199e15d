"""What a check says. Health, doctor, roles, cache, schema and drills differ in what they ask, not how they answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
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
    """How a check ended. UNKNOWN: nobody could look, which is not well. NOT_APPLICABLE: there is nothing to look at.
    SKIPPED: what it rests on is broken, and that is told there."""

    OK = "ok"
    NOT_APPLICABLE = "not applicable"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Outcome).index(self)

    @property
    def severity(self) -> Severity:
        """As a finding has it."""
        return {Outcome.WARNING: Severity.WARNING, Outcome.CRITICAL: Severity.CRITICAL}.get(self, Severity.NOTICE)


# A line that psql takes, and one that a shell takes; everything else is for a person to read.
_SQL = re.compile(
    r"(ALTER|ANALYZE|CALL|CHECKPOINT|COMMIT|CREATE|DELETE|DROP|GRANT|INSERT|REASSIGN|REINDEX|RESET|REVOKE|ROLLBACK"
    r"|SELECT|SET|SHOW|UPDATE|VACUUM)\b.*;|\\password\b",
    re.DOTALL,
)
_COMMAND = re.compile(
    r"(tmi-ops|redis-cli|systemctl|dagster(-daemon)?|dg|aws|openssl|psql|pip|apt-get|chmod|chown|chronyc|timedatectl|du"
    r"|getent|ip|ls|nc|ss|eval|vacuumdb|pg_checksums|pg_ctl)( |$)|[A-Z_]+=\S+$"
)


@dataclass(frozen=True)
class Advice:
    """What helps, a line each in the order in which to do it. What a line is, is told by its first word."""

    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentences for a person."""
        return "\n".join(line for line in self.steps if not _SQL.match(line) and not _COMMAND.match(line))

    @property
    def sql(self) -> tuple[str, ...]:
        """As psql takes it."""
        return tuple(line for line in self.steps if _SQL.match(line))

    @property
    def command(self) -> tuple[str, ...]:
        """As a shell takes it."""
        return tuple(line for line in self.steps if not _SQL.match(line) and _COMMAND.match(line))

    def __bool__(self) -> bool:
        return bool(self.steps)


NOTHING = Advice()


def advise(*steps: str) -> Advice:
    """Advice of these steps, without the empty ones."""
    return Advice(tuple(step for step in steps if step))


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        subject: what it is about: a role, an index, a schedule; empty where the check itself says it.
        what: one sentence without its full stop.
        cause: why it is so, where that is known and not obvious.
    """

    severity: Severity
    subject: str
    what: str
    cause: str = ""
    advice: Advice = NOTHING


@dataclass(frozen=True)
class Answer:
    """What a check says, before it has a name.

    Attributes:
        seen: what is there, one line.
        findings: what is wrong with it, the worst first; a NOTICE is worth knowing, and no trouble.
        ended: UNKNOWN, NOT_APPLICABLE or SKIPPED where it could not be judged; `seen` then says why.
    """

    seen: str
    findings: tuple[Finding, ...] = ()
    ended: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        if self.ended is not None:
            return self.ended
        severity = worst(self.findings)
        if severity in (None, Severity.NOTICE):
            return Outcome.OK
        return Outcome.CRITICAL if severity is Severity.CRITICAL else Outcome.WARNING

    @property
    def cause(self) -> str:
        """Of the worst finding."""
        return self.findings[0].cause if self.findings else ""

    @property
    def advice(self) -> Advice:
        """Of the worst finding."""
        return self.findings[0].advice if self.findings else NOTHING


def judged(outcome: Outcome, seen: str, cause: str = "", advice: Advice = NOTHING) -> Answer:
    """The answer of a check that looks at one thing."""
    finding = Finding(outcome.severity, "", seen, cause, advice)
    told = bool(cause or advice) or outcome in (Outcome.WARNING, Outcome.CRITICAL)
    ended = outcome if outcome in (Outcome.UNKNOWN, Outcome.NOT_APPLICABLE, Outcome.SKIPPED) else None
    return Answer(seen, (finding,) if told else (), ended)


def fine(seen: str) -> Answer:
    return judged(Outcome.OK, seen)


def warning(seen: str, cause: str, *advice: str) -> Answer:
    return judged(Outcome.WARNING, seen, cause, advise(*advice))


def critical(seen: str, cause: str, *advice: str) -> Answer:
    return judged(Outcome.CRITICAL, seen, cause, advise(*advice))


def unknown(why: str, *advice: str) -> Answer:
    """Nobody could look."""
    return judged(Outcome.UNKNOWN, why, "", advise(*advice))


def not_applicable(why: str) -> Answer:
    """There is nothing to look at."""
    return judged(Outcome.NOT_APPLICABLE, why)


@dataclass(frozen=True)
class Result:
    """The answer of one check that has a name.

    Attributes:
        name: stable; it names the check to programs.
        area: what it belongs to, as a heading.
        because: the check whose trouble kept this one from being asked; empty where it was asked.
    """

    name: str
    title: str
    area: str
    answer: Answer
    because: str = ""

    @property
    def outcome(self) -> Outcome:
        return self.answer.outcome


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity among them; None of none."""
    return max((one.severity for one in findings), key=lambda one: one.rank, default=None)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: -one.severity.rank))


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of them; OK of none."""
    return max(outcomes, key=lambda one: one.rank, default=Outcome.OK)
