"""Raises, resolves and retries alerts. Nothing here raises an exception: an alert never fails a backup.

Messages go through apprise. A channel that fails or hangs takes a bounded time and never raises. It is named after its
service, and the variable and position of its address; the address is a secret.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.book import AlertBook
from tmi_ops.alerts.planning import Step, plan_raise, plan_resolve, plan_retry, settled
from tmi_ops.alerts.record import AlertRecord, NoticeKind
from tmi_ops.alerts.wording import Message, message_of, trial_message
from tmi_ops.checks.finding import Severity
from tmi_ops.errors import OpsError
from tmi_ops.settings import AlertSettings, Settings, name_for_others
from tmi_ops.settings.alerting import ALL_URLS, CRITICAL_URLS, WARNING_URLS

# A channel that has not answered by then counts as failed; it is tried again later.
PATIENCE_S = 20.0
_UNKNOWN = "unknown service"
# Schemes whose host is the address of a server, not a token.
_HOST_IS_NO_SECRET = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "syslog", "gotify"}
_SHORTEST_SECRET = 3
_DELIMITERS = re.compile(r"[/?&=:@,#]")

Sender = Callable[[Message], str]


@dataclass(frozen=True)
class Channel:
    """`hears`: the lowest severity it receives. `send` returns an empty text, or why the message did not arrive."""

    name: str
    hears: Severity
    send: Sender = field(repr=False)


def open_channels(settings: AlertSettings) -> list[Channel]:
    """Every configured channel; those whose address apprise does not understand are included and fail to send."""
    groups = (
        (ALL_URLS, settings.urls, Severity.NOTICE),
        (WARNING_URLS, settings.urls_warning, Severity.WARNING),
        (CRITICAL_URLS, settings.urls_critical, Severity.CRITICAL),
    )
    return [
        _channel(variable, number, url.get_secret_value(), hears)
        for variable, urls, hears in groups
        for number, url in enumerate(urls, 1)
    ]


def deliver(channels: Sequence[Channel], message: Message, patience_s: float = PATIENCE_S) -> dict[str, str]:
    """Send a message to all channels at once.

    Returns:
        For each channel, an empty text if the message arrived, or why it did not.
    """
    problems: dict[str, str] = {}

    def send(channel: Channel) -> None:
        try:
            problems[channel.name] = channel.send(message)
        except Exception as error:  # noqa: BLE001 a plugin may raise anything; none of it may stop a backup
            problems[channel.name] = f"apprise failed ({type(error).__name__})"

    # Daemon threads: a channel that hangs must not keep the process from exiting.
    threads = {
        channel.name: threading.Thread(target=send, args=(channel,), name="alert", daemon=True) for channel in channels
    }
    for thread in threads.values():
        thread.start()
    end = time.monotonic() + patience_s
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    return {name: problems.get(name, f"no answer within {patience_s:.0f} s") for name in threads}


def _channel(variable: str, number: int, url: str, hears: Severity) -> Channel:
    apprise = _apprise()
    plugin = apprise.Apprise.instantiate(url)
    if plugin is None:
        name = f"{_UNKNOWN} ({variable} no. {number})"
        return Channel(
            name, hears, lambda _message: "its address is malformed or of an unknown service; correct the variable"
        )
    host = urlsplit(url).hostname if urlsplit(url).scheme.lower() in _HOST_IS_NO_SECRET else None
    service = f"{plugin.service_name} {host}" if host else str(plugin.service_name)
    return Channel(f"{service} ({variable} no. {number})", hears, lambda message: _notify(plugin, url, message))


def _notify(plugin: Any, url: str, message: Message) -> str:
    apprise = _apprise()
    kinds: Mapping[str, Any] = {
        Severity.NOTICE: apprise.NotifyType.INFO,
        Severity.WARNING: apprise.NotifyType.WARNING,
        Severity.CRITICAL: apprise.NotifyType.FAILURE,
    }
    kind = apprise.NotifyType.SUCCESS if message.is_recovery else kinds[message.severity]
    with _Listening() as said:
        arrived = plugin.notify(title=message.title, body=message.body, notify_type=kind, body_format="text")
    return "" if arrived else without_secrets(said.text or "the service refused it without a reason", url)


def without_secrets(text: str, url: str) -> str:
    """`text` with every part of the address masked, except a host that is not secret."""
    parts = urlsplit(url)
    kept = {parts.scheme, parts.hostname if parts.scheme.lower() in _HOST_IS_NO_SECRET else ""}
    written = set(_DELIMITERS.split(url))
    pieces = {*written, *map(unquote, written), *_DELIMITERS.split(unquote(url))} - kept
    for piece in sorted((one for one in pieces if len(one) >= _SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(piece, "***")
    return text


class _Listening(logging.Handler):
    """Captures what apprise logs in this thread during a `with` block: it gives reasons only there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._thread = threading.get_ident()

    @property
    def text(self) -> str:
        return "; ".join(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._lines.append(" ".join(record.getMessage().split()))

    def __enter__(self) -> _Listening:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


def _apprise() -> Any:
    """apprise, which takes half a second to import. Its log may hold addresses, so it is not propagated."""
    import apprise

    logging.getLogger("apprise").propagate = False
    return apprise


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlertOutcome:
    """The result of raising or resolving an alert.

    `sent`: the kind of notice that was sent, None if there was nothing new. `problems`: every channel that was tried,
    with an empty text if the message arrived. `record`: None if there is no such alert. `trouble`: an error in handling
    the alert itself, for logs.
    """

    record: AlertRecord | None = None
    sent: NoticeKind | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def text(self) -> str:
        """One line for a log or a run's metadata."""
        if self.trouble:
            return f"the alert could not be handled: {self.trouble}"
        if self.sent is None:
            return "nothing new to send"
        failed = [f"{channel} ({problem})" for channel, problem in self.problems.items() if problem]
        arrived = [channel for channel, problem in self.problems.items() if not problem]
        told = f"{self.sent}: sent to {', '.join(arrived)}" if arrived else f"{self.sent}: sent to nobody"
        if not self.problems:
            return f"{told}; no channel receives this severity (TMI_OPS_ALERT_URLS)"
        return f"{told}; did not arrive: {', '.join(failed)}" if failed else told


class AlertService:
    """Raises and resolves the alerts of one environment. Usable from several threads; may be kept for hours."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._clock = clock
        self.book = AlertBook(settings)

    def raise_alert(self, alert: Alert) -> AlertOutcome:
        """Report a problem; call this at every check. A notice is sent once, when it gets worse, and every `repeat`."""
        now, repeat = self._clock(), self._settings.alerts.repeat
        return self._do(
            alert.key,
            lambda record: plan_raise(record, alert, self._settings.name, now, repeat, self._hearing),
        )

    def amend(self, alert: Alert) -> AlertOutcome:
        """Report a problem only if its alert is already open."""
        now, repeat = self._clock(), self._settings.alerts.repeat

        def decide(record: AlertRecord | None) -> Step | None:
            if record is None or not record.is_open:
                return None
            return plan_raise(record, alert, self._settings.name, now, repeat, self._hearing)

        return self._do(alert.key, decide)

    def resolve(self, key: str, resolution: str) -> AlertOutcome:
        """Report that a problem is over, and what helped; call this at every check. A notice is sent at most once."""
        now = self._clock()
        return self._do(key, lambda record: plan_resolve(record, resolution, now, self._hearing))

    def retry(self) -> list[AlertOutcome]:
        """Send every notice again that did not arrive and is due."""
        now = self._clock()
        try:
            waiting = [record.alert.key for record in self.records() if plan_retry(record, now)]
        except Exception as error:  # noqa: BLE001
            _log.exception("The alerts could not be read.")
            return [AlertOutcome(trouble=f"{type(error).__name__}: {error}")]
        return [self._do(key, _retry_at(now)) for key in waiting]

    def send_test(self, severity: Severity) -> Mapping[str, str]:
        """Send a test message to all channels that receive `severity`; nothing is recorded.

        Returns:
            For each channel, an empty text if it arrived, or why it did not; empty if no channel is configured.
        """
        hearing = [channel for channel in self.channels if channel.hears.rank <= severity.rank]
        return deliver(hearing, trial_message(self._settings.name, severity, self._clock(), self._said))

    def records(self) -> list[AlertRecord]:
        """Every recorded alert, newest first; `book.problem` tells whether the store could be used."""
        return self.book.records()

    @cached_property
    def channels(self) -> list[Channel]:
        return open_channels(self._settings.alerts)

    @property
    def _said(self) -> str | None:
        try:
            return name_for_others(self._settings.name)
        except OpsError:  # tmi-ops.toml has become unreadable: the alert is sent all the same
            return self._settings.name

    def _hearing(self, severity: Severity) -> Sequence[str]:
        return [channel.name for channel in self.channels if channel.hears.rank <= severity.rank]

    def _do(self, key: str, decide: Callable[[AlertRecord | None], Step | None]) -> AlertOutcome:
        try:
            step = self.book.change(key, decide)
            return self._send(step) if step is not None else AlertOutcome()
        except Exception as error:  # noqa: BLE001 no failure here may affect the work that raised the alert
            _log.exception("The alert %s could not be handled.", key)
            return AlertOutcome(trouble=f"{type(error).__name__}: {error}")

    def _send(self, step: Step) -> AlertOutcome:
        notice = step.notice
        if notice is None:
            return AlertOutcome(step.record)
        message = message_of(notice, step.record.environment, self._clock(), self._said)
        wanted = [channel for channel in self.channels if channel.name in step.channels]
        problems = dict.fromkeys(step.channels, "this channel is no longer configured") | deliver(wanted, message)
        now = self._clock()

        def settle(record: AlertRecord | None) -> Step:
            return Step(settled(record or step.record, notice, problems, now))

        after = self.book.change(step.record.alert.key, settle) if problems else step
        return AlertOutcome(after.record if after else step.record, notice.kind, problems)


def _retry_at(now: datetime) -> Callable[[AlertRecord | None], Step | None]:
    return lambda record: plan_retry(record, now) if record is not None else None
