"""A shadow's trouble as an alert: whoever is on call reads the exact place within seconds. The decision is pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.desk import AlertDesk
from tmi_ops.checks.finding import Severity
from tmi_ops.shadow.report import ShadowReport, Trouble, TroubleKind

# What passes by itself most times is told only when it has not.
PASSES_WITHIN = timedelta(seconds=60)
_PASSING: frozenset[TroubleKind] = frozenset({"store away", "server", "no base backup", "left line"})
# Raising an alert that is open costs requests; the desk itself decides when people are told again.
RAISED_AGAIN_S = 300.0


def alert_of(report: ShadowReport, now: datetime) -> Alert | None:
    """The alert that the report calls for; None: nobody need be told. Pure."""
    troubles = [one for one in report.troubles if one.kind not in _PASSING or now - one.since > PASSES_WITHIN]
    worst = next((one for one in troubles if one.stops), None) or next(iter(troubles), None)
    verified = "nothing yet" if report.verified_to is None else f"{report.verified_to.astimezone(UTC):%F %T} UTC"
    if worst is not None:
        return Alert(
            key=alert_key(report.name),
            severity=Severity.CRITICAL if worst.stops and worst.kind not in _PASSING else Severity.WARNING,
            summary=_summary(report, worst),
            at_risk=f"{worst.what} Verified by replay is what was committed until {verified}.",
            since=worst.since,
            done="The shadow stands just before that place, readable, and looks for a way on."
            if worst.stops
            else "The shadow replays on along its own timeline.",
            to_do=worst.hint or "see `tmi-ops shadow status`",
        )
    if report.damage:
        check = report.damage[0]
        return Alert(
            key=alert_key(report.name),
            severity=Severity.CRITICAL,
            summary=f"What the shadow {report.name} replayed is not sound: {check.name}",
            at_risk=f"{check.detail} {' '.join(check.findings[:3])} The base backup {report.backup_id}, or the WAL "
            "after it, may carry the damage; so may the server itself.",
            since=check.at,
            done="Nothing: the shadow goes on, and its word does not count as proof.",
            to_do="look at the server itself (`tmi-ops health`), and at the backups with `tmi-ops drill`",
        )
    return None


def alert_key(name: str) -> str:
    return f"shadow-{name}"


def _summary(report: ShadowReport, trouble: Trouble) -> str:
    place = f" at {trouble.lsn}" if trouble.lsn else ""
    if trouble.stops:
        return f"The shadow {report.name} cannot replay the archive further{place}: {trouble.kind}"
    return f"The shadow {report.name} has met a {trouble.kind}"


class Bell:
    """Rings where an alert begins, changes or is over; for one thread."""

    def __init__(self, desk: AlertDesk, note: Callable[[str], None]) -> None:
        self._desk, self._note = desk, note
        self._open: Alert | None = None
        self._raised_at: datetime | None = None
        # One that an earlier process left open is resolved by the first look that finds nothing.
        self._begun = False

    def look(self, report: ShadowReport) -> None:
        """Tell people, where they need be told."""
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
            self._desk.resolve(alert_key(report.name), "The shadow has replayed all that is archived.")
            self._open, self._raised_at, self._begun = None, None, True
