"""The diagnosis: the results of all links of the chain, in order of dependency."""

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
    """The results of all links, each after the links it depends on."""

    environment: str
    taken_at: datetime
    results: tuple[Result, ...]

    @property
    def root_cause(self) -> Result | None:
        """The first broken link; if none is broken, the first with a warning."""
        for outcome in (Outcome.CRITICAL, Outcome.WARNING):
            for result in self.results:
                if result.outcome is outcome:
                    return result
        return None

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken and everything could be checked; warnings do not count."""
        return not (self.at(Outcome.CRITICAL) or self.at(Outcome.UNKNOWN))

    def at(self, outcome: Outcome) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome is outcome)

    def result(self, name: str) -> Result:
        """The result of that name; KeyError if there is none."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)
