"""The diagnosis that all links of the chain make, in the order in which they rest on each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tmi_ops.checks.finding import Outcome, Result


class Area(StrEnum):
    CONFIGURATION = "configuration"
    CONNECTION = "connection to PostgreSQL"
    DATABASE = "database"
    WAL = "WAL and replication"
    STORE = "backup store"
    CACHE = "cache"
    SCHEDULING = "scheduling"


@dataclass(frozen=True)
class Diagnosis:
    """Every link in the order in which they rest on each other."""

    environment: str
    taken_at: datetime
    results: tuple[Result, ...]

    @property
    def root_cause(self) -> Result | None:
        """The first link that is broken; where none is, the first that deserves a warning."""
        for outcome in (Outcome.CRITICAL, Outcome.WARNING):
            for result in self.results:
                if result.outcome is outcome:
                    return result
        return None

    @property
    def healthy(self) -> bool:
        """Nothing is broken and everything was looked at; warnings are no breakage."""
        return not (self.at(Outcome.CRITICAL) or self.at(Outcome.UNKNOWN))

    def at(self, outcome: Outcome) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome is outcome)

    def result(self, name: str) -> Result:
        """The result of that name; KeyError where there is none."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)
