"""Reports the shadow's state: to this machine every second, to the store periodically and whenever it changes.

Runs in a thread, so that it also reports during a restore of hours. It holds the current state, which other code
updates.
"""

from __future__ import annotations

import platform
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, OpsError
from tmi_ops.progress import Report
from tmi_ops.settings import Settings
from tmi_ops.shadow.place import LocalState, Reachable, write_local
from tmi_ops.shadow.report import ReportWriter, RollingCheck, ShadowReport, Trouble, TroubleKind
from tmi_ops.store.objects import ObjectStore

# Troubles that usually resolve themselves are reported only if they last longer.
PASSES_WITHIN = timedelta(seconds=60)
_PASSING: frozenset[TroubleKind] = frozenset({"store away", "server", "no base backup", "left line"})
# Raising an open alert again costs requests; the desk decides when to repeat the notification.
RAISED_AGAIN_S = 300.0


def alert_of(report: ShadowReport, now: datetime) -> Alert | None:
    """The alert for a report, or None. Pure."""
    troubles = [one for one in report.troubles if one.kind not in _PASSING or now - one.since > PASSES_WITHIN]
    worst = next((one for one in troubles if one.stops), None) or next(iter(troubles), None)
    verified = (
        "Nothing is verified by replay yet."
        if report.verified_to is None
        else f"Commits up to {report.verified_to.astimezone(UTC):%F %T} UTC are verified by replay."
    )
    if worst is not None:
        return Alert(
            key=alert_key(report.name),
            severity=Severity.CRITICAL if worst.stops and worst.kind not in _PASSING else Severity.WARNING,
            summary=_summary(report, worst),
            at_risk=f"{worst.what} {verified}",
            since=worst.since,
            done="The shadow waits just before that place, still readable, and looks for a way to continue."
            if worst.stops
            else "The shadow continues along its own timeline.",
            to_do=worst.hint or "see `tmi-ops shadow status`",
        )
    if report.damage:
        check = report.damage[0]
        return Alert(
            key=alert_key(report.name),
            severity=Severity.CRITICAL,
            summary=f"The shadow {report.name} has found damage: {check.name}",
            at_risk=f"{check.detail} {' '.join(check.findings[:3])} The damage may be in the base backup "
            f"{report.backup_id}, in the WAL after it, or in the server itself.",
            since=check.at,
            done="Nothing was changed. The shadow continues, but its reports do not count as verification.",
            to_do="check the server with `tmi-ops health`, and the backups with `tmi-ops drill`",
        )
    return None


def alert_key(name: str) -> str:
    return f"shadow-{name}"


def _summary(report: ShadowReport, trouble: Trouble) -> str:
    place = f" at {trouble.lsn}" if trouble.lsn else ""
    if trouble.stops:
        return f"The shadow {report.name} cannot replay further{place}: {trouble.kind}"
    return f"The shadow {report.name} has found a {trouble.kind}"


class ShadowAlerts:
    """Raises, updates and resolves a shadow's alert; for use by one thread."""

    def __init__(self, service: AlertService, note: Callable[[str], None]) -> None:
        self._service, self._note = service, note
        self._open: Alert | None = None
        self._raised_at: datetime | None = None
        # An alert left open by an earlier process is resolved by the first look that finds nothing.
        self._begun = False

    def look(self, report: ShadowReport) -> None:
        """Raise or resolve the alert for this report."""
        now = datetime.now(UTC)
        alert = alert_of(report, now)
        if alert is not None:
            again = self._raised_at is None or (now - self._raised_at).total_seconds() > RAISED_AGAIN_S
            if again or self._open is None or alert.summary != self._open.summary:
                outcome = self._service.raise_alert(alert)
                self._raised_at = now
                if outcome.sent is not None or outcome.trouble:
                    self._note(outcome.text)
            self._open, self._begun = alert, True
        elif report.state == "level" and (self._open is not None or not self._begun):
            self._service.resolve(alert_key(report.name), "The shadow has replayed all archived WAL.")
            self._open, self._raised_at, self._begun = None, None, True


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
        OpsError: its reports would not count: another shadow has its name, or its key may not sign verifications.
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
        self._end = store.backend.watch(self._count)

    def counted(self) -> dict[str, int]:
        return dict(self._counts)

    def end(self) -> None:
        self._end()

    def _count(self, operation: str) -> None:
        self._counts[operation] += 1
