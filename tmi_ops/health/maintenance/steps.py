"""The steps of maintenance, as values; none of them blocks reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["connections", "vacuum", "analyze", "reindex"]
KINDS: tuple[Kind, ...] = ("connections", "vacuum", "analyze", "reindex")


@dataclass(frozen=True)
class EndSession:
    """End one transaction of a client: in the session it was seen in, never in another that now has the pid."""

    pid: int
    backend_start: datetime
    xact_start: datetime | None
    idle: bool
    who: str
    reason: str

    kind = "connections"
    locks = "none; its transaction is rolled back"

    @property
    def sql(self) -> str:
        function = "pg_terminate_backend" if self.idle else "pg_cancel_backend"
        return f"SELECT {function}({self.pid});"

    @property
    def subject(self) -> str:
        return self.who


@dataclass(frozen=True)
class Vacuum:
    """Remove dead rows and update the planner's statistics; with `freeze`, also freeze rows against wraparound."""

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
    """Update the planner's statistics."""

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
    """Drop an invalid index left by an unfinished REINDEX CONCURRENTLY, while `original` exists and is valid."""

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
    """Build a new index beside the old one, then swap them. `size`: bytes the new one may need."""

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
    """A subject that needs maintenance but is not in the plan, and why."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The steps in order: those that block others come first."""

    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps
