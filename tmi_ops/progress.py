"""Progress reports of domain code: the CLI draws bars, Dagster logs them, tests record them.

What the process waits for is known without a report, so that a command can say it whatever it does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

# What was asked and has not answered, the oldest first, with when that was (by the monotonic clock). Of all threads.
_awaited: list[tuple[str, float]] = []
_of_all_threads = threading.Lock()

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


def begin_waiting(what: str) -> None:
    """Note that a server was asked. For callbacks; else `waiting_for`."""
    with _of_all_threads:
        _awaited.append((what, time.monotonic()))


def end_waiting(what: str) -> None:
    """Note that it has answered, or failed to."""
    with _of_all_threads:
        found = next((one for one in _awaited if one[0] == what), None)
        if found is not None:
            _awaited.remove(found)


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """A server is asked for the length of a `with` block."""
    begin_waiting(what)
    try:
        yield
    finally:
        end_waiting(what)


def awaited() -> tuple[str, float] | None:
    """What has been awaited longest, and for how many seconds; None: nothing is known to be awaited."""
    with _of_all_threads:
        return next(((what, time.monotonic() - since) for what, since in _awaited), None)
