"""Progress reports of domain code: the CLI draws bars, Dagster logs them, tests record them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "tables", "steps", "objects", "rows", "keys"]


class Phase(Protocol):
    """A piece of work with a known or unknown total. Thread-safe."""

    def advance(self, amount: float) -> None:
        """Report that `amount` more units are done."""
        ...


class Report(Protocol):
    """Receives progress. Phases may run concurrently."""

    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> AbstractContextManager[Phase]:
        """Start a phase; it ends with the context, also on an error."""
        ...

    def note(self, message: str) -> None:
        """Report a line for the log."""
        ...


class _SilentPhase:
    def advance(self, amount: float) -> None:
        pass


class SilentReport:
    """Discards reports."""

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        yield _SilentPhase()

    def note(self, message: str) -> None:
        pass
