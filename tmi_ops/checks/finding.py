"""The results of checks, in one form for health, doctor, roles, cache, schema and drills."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is. NOTICE: worth knowing. WARNING: fix it. CRITICAL: something does not work or is not safe,
    or soon will not be."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Outcome(StrEnum):
    """How a check ended. UNKNOWN: it could not be done, which is not OK. NOT_APPLICABLE: there is nothing to check.
    SKIPPED: a check it depends on failed, and reports that itself."""

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
        """The severity of a finding with this outcome."""
        return {Outcome.WARNING: Severity.WARNING, Outcome.CRITICAL: Severity.CRITICAL}.get(self, Severity.NOTICE)


# A line for psql, and a line for a shell; every other line is a sentence.
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
    """What to do, one step per line, in order. The first word tells whether a line is SQL, a command or a sentence."""

    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentences."""
        return "\n".join(line for line in self.steps if not is_typed(line))

    @property
    def sql(self) -> tuple[str, ...]:
        """The lines for psql."""
        return tuple(line for line in self.steps if _SQL.match(line))

    @property
    def command(self) -> tuple[str, ...]:
        """The lines for a shell."""
        return tuple(line for line in self.steps if not _SQL.match(line) and _COMMAND.match(line))

    def __bool__(self) -> bool:
        return bool(self.steps)


def is_typed(line: str) -> bool:
    """Whether a line of advice is SQL or a command, which a person copies."""
    return bool(_SQL.match(line) or _COMMAND.match(line))


NOTHING = Advice()


def advise(*steps: str) -> Advice:
    """Advice with these steps, leaving out empty ones."""
    return Advice(tuple(step for step in steps if step))


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        subject: the object: a role, an index, a schedule; empty if the check itself names it.
        what: what is wrong, one sentence without its full stop.
        cause: why, if that is known and not obvious.
    """

    severity: Severity
    subject: str
    what: str
    cause: str = ""
    advice: Advice = NOTHING


@dataclass(frozen=True)
class Answer:
    """The result of a check, without the check's name.

    Attributes:
        seen: the state that was found, one line.
        findings: what is wrong, the worst first; a NOTICE is not a problem.
        ended: UNKNOWN, NOT_APPLICABLE or SKIPPED if it could not be judged; `seen` then says why.
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
        """The cause of the worst finding."""
        return self.findings[0].cause if self.findings else ""

    @property
    def advice(self) -> Advice:
        """The advice of the worst finding."""
        return self.findings[0].advice if self.findings else NOTHING


def judged(outcome: Outcome, seen: str, cause: str = "", advice: Advice = NOTHING) -> Answer:
    """The answer of a check with one subject."""
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
    """The check could not be done."""
    return judged(Outcome.UNKNOWN, why, "", advise(*advice))


def not_applicable(why: str) -> Answer:
    """There is nothing to check."""
    return judged(Outcome.NOT_APPLICABLE, why)


@dataclass(frozen=True)
class Result:
    """The answer of a check, with its name.

    Attributes:
        name: stable; programs refer to the check by it.
        area: the group it belongs to, as a heading.
        because: the check whose failure caused this one to be skipped; empty if it was done.
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
