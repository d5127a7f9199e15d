"""Runs a shadow in a thread, and waits for its states."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.shadow.life import ShadowOptions, run_shadow
from tmi_ops.shadow.place import HandedOver, read_local
from tmi_ops.shadow.report import ShadowReport, Trouble
from tmi_ops.store.objects import open_store
from tmi_ops_tests.physical import Notes

# What the tests may wait for anything; a fault must be noticed in the first part of it.
PATIENCE_S, NOTICED_WITHIN_S = 90.0, 15.0


@dataclass
class Shadow:
    """`run_shadow` in a thread. `error`: the error it ended with."""

    settings: Settings
    options: ShadowOptions
    stop: threading.Event = field(default_factory=threading.Event)
    notes: Notes = field(default_factory=Notes)
    handed_over: HandedOver | None = None
    error: Exception | None = None

    def run(self) -> None:
        store = open_store(self.settings.store, self.settings.environment)
        try:
            self.handed_over = run_shadow(self.settings, store, self.options, self.notes, self.stop)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def report(self) -> ShadowReport:
        local = read_local(self.settings)
        assert local is not None
        return local.report

    @property
    def address(self) -> PostgresSettings:
        """The login of its server."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            local = read_local(self.settings)
            if local is not None and local.reachable is not None:
                return local.reachable.address
            self.require_alive()
            time.sleep(0.1)
        raise AssertionError("its server does not run")

    def require_alive(self) -> None:
        if self.error is not None:
            raise self.error

    def until(self, reached: Callable[[ShadowReport], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until its report says so."""
        deadline = time.monotonic() + patience_s
        while True:
            self.require_alive()
            local = read_local(self.settings)
            if local is not None and reached(local.report):
                return
            assert time.monotonic() < deadline, f"{what}; it says {local and local.report}"
            time.sleep(0.1)

    def trouble(self, kind: str) -> Trouble:
        """Wait for a trouble of this kind, no longer than a fault may stay unnoticed."""
        self.until(lambda report: _of(report, kind), f"{kind} was not noticed", NOTICED_WITHIN_S)
        found = _of(self.report, kind)
        assert found is not None
        return found

    def until_level(self) -> None:
        self.until(lambda report: report.state == "level" and not report.troubles, "it did not become level")

    def rows(self, query: str = "SELECT count(*) FROM ledger") -> int:
        with connect(self.address, self.settings.postgres.database) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def until_rows(self, wanted: int, query: str = "SELECT count(*) FROM ledger") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.require_alive()
            found: int | str | None = None
            try:
                found = self.rows(query)
            except OpsError as error:
                found = error.message
            if found == wanted:
                return
            assert time.monotonic() < deadline, f"{found} rows, not {wanted}; {self.report}"
            time.sleep(0.1)


def _of(report: ShadowReport, kind: str) -> Trouble | None:
    return next((one for one in report.troubles if one.kind == kind), None)


@contextmanager
def shadowing(settings: Settings, options: ShadowOptions | None = None) -> Iterator[Shadow]:
    """A running shadow for the length of a `with` block."""
    shadow = Shadow(settings, options or ShadowOptions(name="test", report_every=2))
    thread = threading.Thread(target=shadow.run)
    thread.start()
    try:
        yield shadow
    finally:
        shadow.stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
