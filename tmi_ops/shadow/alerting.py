"""Raises alerts for a shadow's troubles, with the exact place in the WAL. Deciding is pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.shadow.report import ShadowReport, Trouble, TroubleKind

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

    def __init__(self, desk: AlertService, note: Callable[[str], None]) -> None:
        self._desk, self._note = desk, note
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
                outcome = self._desk.raise_alert(alert)
                self._raised_at = now
                if outcome.sent is not None or outcome.trouble:
                    self._note(outcome.words)
            self._open, self._begun = alert, True
        elif report.state == "level" and (self._open is not None or not self._begun):
            self._desk.resolve(alert_key(report.name), "The shadow has replayed all archived WAL.")
            self._open, self._raised_at, self._begun = None, None, True
