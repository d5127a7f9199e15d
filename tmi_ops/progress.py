"""How domain code reports progress upward: the CLI draws bars, Dagster logs, tests listen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "tables", "steps", "objects", "rows", "keys"]


class Phase(Protocol):
    """A stretch of work with a known or unknown total. Safe to advance from any thread."""

    def advance(self, amount: float) -> None:
        """Say that `amount` more units are done."""
        ...


class Report(Protocol):
    """The one callback between domain code and whoever shows it. Phases may run side by side."""

    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> AbstractContextManager[Phase]:
        """Open a phase; it ends with the context, also on an error."""
        ...

    def note(self, message: str) -> None:
        """Say one line worth reading in a log."""
        ...


class _SilentPhase:
    def advance(self, amount: float) -> None:
        pass


class SilentReport:
    """Reports to nobody."""

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        yield _SilentPhase()

    def note(self, message: str) -> None:
        pass
