"""Channels: where messages go, through apprise. A channel that fails or hangs takes a bounded time and never raises.

A channel is named after its service, and the variable and position of its address; the address is a secret.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tmi_ops.alerts.wording import Message
from tmi_ops.checks.finding import Severity
from tmi_ops.settings import AlertSettings
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
