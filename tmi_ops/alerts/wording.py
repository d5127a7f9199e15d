"""A message that a tired person understands: what is at risk, since when, what was done, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tmi_ops.alerts.record import Notice, NoticeKind
from tmi_ops.typed import with_environment
from tmi_ops.words import time_words

_STATUS = "See where things stand: `tmi-ops status`. All open alerts: `tmi-ops alerts`."


@dataclass(frozen=True)
class Message:
    """Plain text for any channel. `is_recovery` lets a channel show it in green."""

    title: str
    body: str
    severity: str
    is_recovery: bool = False


def message_of(notice: Notice, environment: str, now: datetime, said: str | None = None) -> Message:
    """What people read of this notice.

    Args:
        said: the environment's name where commands must carry it.
    """
    alert = notice.alert
    if notice.kind is NoticeKind.RESOLVED:
        lasted = time_words((notice.at - alert.since).total_seconds())
        lines = (
            f"Over since: {moment_words(notice.at)}, after {lasted}.",
            f"What helped: {notice.resolution}",
            f"It was: {alert.at_risk}",
            "To do: nothing now.",
        )
        title = f"[{environment}] RESOLVED: {alert.summary}"
        return Message(title, _body(lines, alert.key, said), alert.severity, is_recovery=True)
    how = {NoticeKind.ESCALATED: " (now worse)", NoticeKind.REMINDER: " (still so)"}.get(notice.kind, "")
    lines = (
        f"At risk: {alert.at_risk}",
        f"Since: {moment_words(alert.since)} ({time_words((now - alert.since).total_seconds())} ago).",
        f"Done: {alert.done}",
        f"To do: {alert.to_do}",
    )
    return Message(
        f"[{environment}] {alert.severity.upper()}: {alert.summary}{how}", _body(lines, alert.key, said), alert.severity
    )


def trial_message(environment: str, severity: str, now: datetime, said: str | None = None) -> Message:
    """What `tmi-ops alert test` sends. `said` as in `message_of`."""
    lines = (
        "At risk: nothing. Somebody tries whether alerts arrive here.",
        f"Since: {moment_words(now)}.",
        "Done: this message was sent to every channel that hears of this severity.",
        "To do: nothing.",
    )
    return Message(f"[{environment}] TEST of {severity} alerts", _body(lines, "test", said), severity)


def moment_words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _body(lines: tuple[str, ...], key: str, said: str | None) -> str:
    return with_environment("\n".join([*lines, "", _STATUS, f"(alert {key})"]), said)
