"""Reports the shadow's state: to this machine every second, to the store periodically and whenever it changes.

Runs in a thread, so that it also reports during a restore of hours. It holds the current state, which other code
updates.
"""

from __future__ import annotations

import platform
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tmi_ops.alerts.service import AlertService
from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, OpsError
from tmi_ops.progress import Report
from tmi_ops.settings import Settings
from tmi_ops.shadow.alerting import ShadowAlerts
from tmi_ops.shadow.place import LocalState, Reachable, write_local
from tmi_ops.shadow.report import ReportWriter, RollingCheck, ShadowReport, Trouble
from tmi_ops.store.objects import ObjectStore

LOCAL_EVERY_S = 1.0


class Reporter:
    """Reports the shadow's state for the length of a `with` block."""

    def __init__(
        self, settings: Settings, store: ObjectStore, name: str, every_s: float, delay_s: float, report: Report
    ) -> None:
        now = datetime.now(UTC)
        self._settings, self._report = settings, report
        self._writer = ReportWriter(store, name)
        self._known = ShadowReport(
            name=name,
            host=platform.node(),
            environment=settings.environment,
            began_at=now,
            written_at=now,
            every_s=every_s,
            state="restoring",
            delay_s=delay_s,
        )
        self._reachable: Reachable | None = None
        self._written: tuple[object, ...] = ()
        self._written_at: datetime | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._failure: OpsError | None = None
        self._requests = Requests(store)
        self._alerts = ShadowAlerts(AlertService(settings), report.note)
        self._thread = threading.Thread(target=self._tend, name="shadow-reporter", daemon=True)

    @property
    def report(self) -> ShadowReport:
        """The current report."""
        with self._lock:
            return self._known.model_copy(
                update={"written_at": datetime.now(UTC), "requests": self._requests.counted()}
            )

    def update(self, **changes: object) -> None:
        """Update the next report."""
        with self._lock:
            self._known = self._known.model_copy(update=changes)

    def reachable(self, reachable: Reachable | None) -> None:
        with self._lock:
            self._reachable = reachable

    def checked(self, check: RollingCheck) -> None:
        """Add the newest result of a periodic check."""
        with self._lock:
            others = tuple(one for one in self._known.checks if one.name != check.name)
            checks = tuple(sorted((*others, check), key=lambda one: one.name))
            self._known = self._known.model_copy(update={"checks": checks})

    def change_troubles(self, found: Callable[[tuple[Trouble, ...]], tuple[Trouble, ...]]) -> None:
        """Update the troubles; those that persist keep their start time."""
        with self._lock:
            before = {(one.kind, one.segment): one.since for one in self._known.troubles}
            troubles = tuple(
                one.model_copy(update={"since": before.get((one.kind, one.segment), one.since)})
                for one in found(self._known.troubles)
            )
            told = [one for one in troubles if (one.kind, one.segment) not in before]
            self._known = self._known.model_copy(update={"troubles": troubles})
        for one in told:
            self._report.note(f"{one.kind}: {one.what}")

    def require_accepted(self) -> None:
        """Raises:
        OpsError: its reports would not count: another shadow has its name, or its key may not sign proofs.
        """
        if self._failure is not None:
            raise self._failure

    def tell(self) -> None:
        """Report at once, to both."""
        report = self.report
        self._write_local(report)
        self._write_store(report)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self.reachable(None)
        self.update(state="ended")
        self.tell()
        self._requests.end()

    def _tend(self) -> None:
        while not self._ending.wait(LOCAL_EVERY_S):
            report = self.report
            self._write_local(report)
            if self._is_due(report):
                self._write_store(report)
            self._alerts.look(report)

    def _is_due(self, report: ShadowReport) -> bool:
        age = None if self._written_at is None else (report.written_at - self._written_at).total_seconds()
        return age is None or age >= report.every_s or _state_key(report) != self._written

    def _write_local(self, report: ShadowReport) -> None:
        with self._lock:
            reachable = self._reachable
        try:
            write_local(self._settings, LocalState(report=report, reachable=reachable))
        except OSError as error:
            self._report.note(f"The local report could not be written: {error}")

    def _write_store(self, report: ShadowReport) -> None:
        # Also after a failure: try again when the next report is due, not at once.
        self._written, self._written_at = _state_key(report), report.written_at
        try:
            self._writer.write(report)
        except ObjectExistsError as error:
            self._failure = OpsError(
                f"Another shadow reports under the name {report.name}: {error.message}",
                detail="Its reports were not changed.",
                hint="stop one of them, or give this one another name with --name",
                code=Code.SHADOW_NAME_TAKEN,
            )
        except OpsError as error:
            if error.transient:
                self._report.note(f"The report could not be stored: {error.message}")
            else:
                self._failure = error


def _state_key(report: ShadowReport) -> tuple[object, ...]:
    """The state whose changes are reported at once."""
    level = report.state == "level"
    moving = report.state in ("level", "catching up")  # alternates with every commit
    return (
        "moving" if moving else report.state,
        level and report.verified_to is None,
        report.backup_id,
        report.timeline,
        tuple((one.kind, one.segment) for one in report.troubles),
        tuple(one.name for one in report.damage),
    )


class Requests:
    """Counts requests to the store, by operation."""

    def __init__(self, store: ObjectStore) -> None:
        self._counts: Counter[str] = Counter()
        self._events = store.client.meta.events
        self._events.register("before-call.s3", self._count, unique_id=str(id(self)))

    def counted(self) -> dict[str, int]:
        return dict(self._counts)

    def end(self) -> None:
        self._events.unregister("before-call.s3", self._count, unique_id=str(id(self)))

    def _count(self, model: Any, **_: object) -> None:
        self._counts[str(model.name)] += 1
