"""What maintenance can do to a database, as values; none of it holds up reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["connections", "vacuum", "analyze", "reindex"]
KINDS: tuple[Kind, ...] = ("connections", "vacuum", "analyze", "reindex")


@dataclass(frozen=True)
class EndSession:
    """End one transaction of a client: the session it was seen in, and no other that has its pid by now."""

    pid: int
    backend_start: datetime
    xact_start: datetime | None
    idle: bool
    who: str
    reason: str

    kind = "connections"
    locks = "none; what the transaction did is rolled back"

    @property
    def sql(self) -> str:
        deed = "pg_terminate_backend" if self.idle else "pg_cancel_backend"
        return f"SELECT {deed}({self.pid});"

    @property
    def subject(self) -> str:
        return self.who


@dataclass(frozen=True)
class Vacuum:
    """Clear dead rows away and renew the statistics; with `freeze`, against wraparound."""

    table: str
    reason: str
    freeze: bool = False

    kind = "vacuum"
    locks = "SHARE UPDATE EXCLUSIVE: reads and writes go on"

    @property
    def sql(self) -> str:
        return f"VACUUM ({'FREEZE, ' if self.freeze else ''}ANALYZE) {self.table};"

    @property
    def subject(self) -> str:
        return self.table


@dataclass(frozen=True)
class Analyze:
    """Renew the planner's statistics."""

    table: str
    reason: str

    kind = "analyze"
    locks = "SHARE UPDATE EXCLUSIVE: reads and writes go on"

    @property
    def sql(self) -> str:
        return f"ANALYZE {self.table};"

    @property
    def subject(self) -> str:
        return self.table


@dataclass(frozen=True)
class DropLeftover:
    """Drop what a broken-off REINDEX CONCURRENTLY left invalid, while `original` is there and valid."""

    index: str
    table: str
    original: str
    reason: str

    kind = "reindex"
    locks = "SHARE UPDATE EXCLUSIVE: reads and writes go on"

    @property
    def sql(self) -> str:
        return f"DROP INDEX CONCURRENTLY {self.index};"

    @property
    def subject(self) -> str:
        return self.index


@dataclass(frozen=True)
class Rebuild:
    """Build an index anew beside the old one, then swap. `size`: bytes the new one may need meanwhile."""

    index: str
    table: str
    reason: str
    size: int = 0

    kind = "reindex"
    locks = "SHARE UPDATE EXCLUSIVE: reads and writes go on; it waits for older transactions to end"

    @property
    def sql(self) -> str:
        return f"REINDEX INDEX CONCURRENTLY {self.index};"

    @property
    def subject(self) -> str:
        return self.index


Step = EndSession | Vacuum | Analyze | DropLeftover | Rebuild


@dataclass(frozen=True)
class LeftOut:
    """What health asks for and the plan does not do, and why."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The steps in order. What stands in the way of the others comes first."""

    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps
