"""The dead-man heartbeat: an outside monitor that is pinged while all is well, so that silence itself is noticed.

Pinged when the newest recoverable moment was just seen, or just made, to be within the objective: an RPO reading that
is met, a backup committed or WAL caught up with by hand. Nothing else counts: a scheduler that runs and protects
nothing is silent.
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
        why: what succeeded, or what is wrong; shown by monitors that keep the body. No secrets.
        failed: tell the monitor at once instead of letting it wait: `/fail` is added to the path, as healthchecks.io
            has it. An address with a query is not pinged then.

    Returns:
        An empty text where it arrived or no monitor is configured, else why it did not arrive.
    """
    secret = settings.alerts.heartbeat_url
    if secret is None:
        return ""
    url = secret.get_secret_value()
    if failed and urlsplit(url).query:
        return ""
    problems: list[str] = []
    # A daemon: neither DNS nor a server that sends a byte a second may hold up what has just succeeded.
    thread = threading.Thread(
        target=lambda: problems.append(_post(_failing(url) if failed else url, why)), name="heartbeat", daemon=True
    )
    thread.start()
    thread.join(PATIENCE_S)
    problem = problems[0] if problems else _no_answer()
    if problem:
        _log.warning("The heartbeat did not reach its monitor (TMI_OPS_HEARTBEAT_URL): %s", problem)
    return problem


def _failing(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


def _post(url: str, why: str) -> str:
    try:
        request = urllib.request.Request(url, data=why.encode(), method="POST")  # noqa: S310 settings allow http(s) only
        with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
            return ""
    except Exception as error:  # noqa: BLE001 whatever it is, it must not stop what has just succeeded
        # The text of the error may hold the address, which is a secret.
        status = getattr(error, "code", None)
        reason = getattr(error, "reason", None)
        cause = reason if isinstance(reason, Exception) else error
        if isinstance(cause, TimeoutError):
            return _no_answer()
        return f"HTTP {status}" if status else type(cause).__name__


def _no_answer() -> str:
    return f"no answer within {PATIENCE_S:.0f} s"
