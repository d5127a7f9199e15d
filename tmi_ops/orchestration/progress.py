"""A Report that writes to the run's log: a line when a phase ends, and one every few seconds while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterLogManager

from tmi_ops.command_texts import with_environment
from tmi_ops.progress import Phase, Unit
from tmi_ops.text import printable

LINE_EVERY_S = 10.0


class _LoggedPhase:
    def __init__(self, log: DagsterLogManager, name: str, total: float | None, unit: Unit) -> None:
        self._log = log
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._lock = threading.Lock()
        self._next_line = time.monotonic() + LINE_EVERY_S

    def advance(self, amount: float) -> None:
        with self._lock:
            self._done += amount
            if time.monotonic() < self._next_line:
                return
            self._next_line = time.monotonic() + LINE_EVERY_S
        self._log.info(f"{self._name}: {self.describe()}")

    def describe(self) -> str:
        done, total = self._done, self._total
        if self._unit == "bytes":
            return f"{done / 1e6:,.1f} MB" + (f" of {total / 1e6:,.1f} MB" if total else "")
        return f"{done:,.0f}" + (f" of {total:,.0f}" if total else "") + f" {self._unit}"


class RunLogReport:
    """Reports into `context.log`."""

    def __init__(self, log: DagsterLogManager, name: str | None = None) -> None:
        """`name`: of the environment, if commands must name it."""
        self._log = log
        self._name = name

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        phase = _LoggedPhase(self._log, name, total, unit)
        start = time.monotonic()
        yield phase
        self._log.info(f"{name}: {phase.describe()} in {time.monotonic() - start:.1f} s")

    def note(self, message: str) -> None:
        self._log.info(printable(with_environment(message, self._name)))
