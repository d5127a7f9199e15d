"""The text of an alert's messages: what is at risk, since when, what was done, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tmi_ops.alerts.record import Notice, NoticeKind
from tmi_ops.command_texts import with_environment
from tmi_ops.text import format_duration

_STATUS = "Status: `tmi-ops status`. Open alerts: `tmi-ops alerts`."


@dataclass(frozen=True)
class Message:
    """Plain text for any channel. `is_recovery` lets a channel show it in green."""

    title: str
    body: str
    severity: str
    is_recovery: bool = False


def message_of(notice: Notice, environment: str, now: datetime, said: str | None = None) -> Message:
    """The message of a notice.

    Args:
        said: the environment's name, if commands must include it.
    """
    alert = notice.alert
    if notice.kind is NoticeKind.RESOLVED:
        lasted = format_duration((notice.at - alert.since).total_seconds())
        lines = (
            f"Resolved: {format_moment(notice.at)}, after {lasted}.",
            f"What helped: {notice.resolution}",
            f"Was at risk: {alert.at_risk}",
            "To do: nothing.",
        )
        title = f"[{environment}] RESOLVED: {alert.summary}"
        return Message(title, _body(lines, alert.key, said), alert.severity, is_recovery=True)
    how = {NoticeKind.ESCALATED: " (now worse)", NoticeKind.REMINDER: " (reminder)"}.get(notice.kind, "")
    lines = (
        f"At risk: {alert.at_risk}",
        f"Since: {format_moment(alert.since)} ({format_duration((now - alert.since).total_seconds())} ago).",
        f"Done: {alert.done}",
        f"To do: {alert.to_do}",
    )
    return Message(
        f"[{environment}] {alert.severity.upper()}: {alert.summary}{how}", _body(lines, alert.key, said), alert.severity
    )


def trial_message(environment: str, severity: str, now: datetime, said: str | None = None) -> Message:
    """The message that `tmi-ops alert test` sends. `said` as in `message_of`."""
    lines = (
        "At risk: nothing. This is a test of alert delivery.",
        f"Since: {format_moment(now)}.",
        "Done: this message was sent to every channel that receives this severity.",
        "To do: nothing.",
    )
    return Message(f"[{environment}] TEST of {severity} alerts", _body(lines, "test", said), severity)


def format_moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _body(lines: tuple[str, ...], key: str, said: str | None) -> str:
    return with_environment("\n".join([*lines, "", _STATUS, f"(alert {key})"]), said)
