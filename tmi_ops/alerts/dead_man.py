"""The dead-man heartbeat: an external monitor that is pinged while the RPO is met, and raises an alarm when pings stop.

Pinged when the latest recovery point was just found, or just made, to be within the objective: by an RPO reading that
is met, a committed backup, or a WAL catch-up run by hand. Nothing else counts: a scheduler that runs but protects
nothing does not ping.
"""

from __future__ import annotations

import logging
import threading
import urllib.request
from urllib.parse import urlsplit, urlunsplit

from tmi_ops.settings import Settings

PATIENCE_S = 10.0
_log = logging.getLogger(__name__)


def ping_heartbeat(settings: Settings, why: str, *, failed: bool = False) -> str:
    """Ping the monitor with one line of text. Never raises, and takes at most `PATIENCE_S`.

    Args:
        why: what succeeded, or what is wrong; monitors that keep the body show it. No secrets.
        failed: report a failure at once: `/fail` is added to the path, as healthchecks.io expects. An address with a
            query is not pinged then.

    Returns:
        An empty text if it arrived or no monitor is configured, else why it did not arrive.
    """
    secret = settings.alerts.heartbeat_url
    if secret is None:
        return ""
    url = secret.get_secret_value()
    if failed and urlsplit(url).query:
        return ""
    problems: list[str] = []
    # A daemon thread: neither DNS nor a server that sends a byte a second may delay what has just succeeded.
    thread = threading.Thread(
        target=lambda: problems.append(_post(_failing(url) if failed else url, why)), name="heartbeat", daemon=True
    )
    thread.start()
    thread.join(PATIENCE_S)
    problem = problems[0] if problems else _no_answer()
    if problem:
        _log.warning("The dead-man heartbeat did not reach its monitor (TMI_OPS_HEARTBEAT_URL): %s", problem)
    return problem


def _failing(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


def _post(url: str, why: str) -> str:
    try:
        request = urllib.request.Request(url, data=why.encode(), method="POST")  # noqa: S310 settings allow http(s) only
        with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
            return ""
    except Exception as error:  # noqa: BLE001 no failure may affect what has just succeeded
        # The error's text may hold the address, which is a secret.
        status = getattr(error, "code", None)
        reason = getattr(error, "reason", None)
        cause = reason if isinstance(reason, Exception) else error
        if isinstance(cause, TimeoutError):
            return _no_answer()
        return f"HTTP {status}" if status else type(cause).__name__


def _no_answer() -> str:
    return f"no answer within {PATIENCE_S:.0f} s"
