"""What was seen at one link of the chain, and the diagnosis that all of them make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How a link is. Only `failed` and what follows from it keep tmi_ops from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"  # an earlier link is broken, or nothing of the kind is configured
    UNKNOWN = "unknown"  # could not look


class Area(StrEnum):
    CONFIGURATION = "configuration"
    CONNECTION = "connection to PostgreSQL"
    DATABASE = "database"
    WAL = "WAL and replication"
    STORE = "backup store"
    CACHE = "cache"
    SCHEDULING = "scheduling"


@dataclass(frozen=True)
class Finding:
    """One look at one link.

    Attributes:
        seen: what is there, one line.
        cause: why it is broken, in plain words; empty where it is not.
        fix: what mends it, a line each: statements end with `;`, shell commands are as one would type them.
    """

    outcome: Outcome
    seen: str
    cause: str = ""
    fix: tuple[str, ...] = ()


def fine(seen: str) -> Finding:
    return Finding(Outcome.OK, seen)


def warning(seen: str, cause: str, *fix: str) -> Finding:
    return Finding(Outcome.WARNING, seen, cause, fix)


def failed(seen: str, cause: str, *fix: str) -> Finding:
    return Finding(Outcome.FAILED, seen, cause, fix)


def not_configured(seen: str) -> Finding:
    return Finding(Outcome.SKIPPED, seen)


def could_not_look(seen: str, *fix: str) -> Finding:
    return Finding(Outcome.UNKNOWN, seen, "", fix)


@dataclass(frozen=True)
class Step:
    """A link and what was found there. `because` names the broken link for which this one was skipped."""

    name: str
    title: str
    area: Area
    finding: Finding
    because: str | None = None

    @property
    def outcome(self) -> Outcome:
        return self.finding.outcome


@dataclass(frozen=True)
class Diagnosis:
    """Every link in the order in which they rest on each other."""

    environment: str
    taken_at: datetime
    steps: tuple[Step, ...]

    @property
    def root_cause(self) -> Step | None:
        """The first link that is broken; where none is, the first that deserves a warning."""
        for outcome in (Outcome.FAILED, Outcome.WARNING):
            for step in self.steps:
                if step.outcome is outcome:
                    return step
        return None

    @property
    def healthy(self) -> bool:
        """Nothing is broken and everything was looked at; warnings are no breakage."""
        return not (self.at(Outcome.FAILED) or self.at(Outcome.UNKNOWN))

    def at(self, outcome: Outcome) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.outcome is outcome)

    def of(self, area: Area) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.area is area)

    def step(self, name: str) -> Step:
        """The step of that name; KeyError where there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)
