"""Who is told, and how: addresses of alert channels and the dead-man heartbeat. Every address is a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

from tmi_ops.errors import SettingsError
from tmi_ops.settings.durations import duration_of
from tmi_ops.settings.facts import AlertSettings

ALL_URLS = "TMI_OPS_ALERT_URLS"
WARNING_URLS = "TMI_OPS_ALERT_URLS_WARNING"
CRITICAL_URLS = "TMI_OPS_ALERT_URLS_CRITICAL"
REPEAT = "TMI_OPS_ALERT_REPEAT"
HEARTBEAT_URL = "TMI_OPS_HEARTBEAT_URL"
ALERT_VARIABLES = {
    "urls": ALL_URLS,
    "urls_warning": WARNING_URLS,
    "urls_critical": CRITICAL_URLS,
    "heartbeat_url": HEARTBEAT_URL,
}

# Addresses may hold commas of their own (`?to=a@example.com,b@example.com`): only what begins one ends the one before.
_BETWEEN = re.compile(r"[\s,;]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s]+")


def alerts_from(values: Mapping[str, str]) -> AlertSettings:
    """Raises:
    SettingsError: an address or the interval is malformed; the variable is named, its value is not.
    """
    fields: dict[str, object] = {
        "urls": _addresses(ALL_URLS, values),
        "urls_warning": _addresses(WARNING_URLS, values),
        "urls_critical": _addresses(CRITICAL_URLS, values),
        "heartbeat_url": _heartbeat(values.get(HEARTBEAT_URL, "").strip()),
    }
    if values.get(REPEAT):
        fields["repeat"] = duration_of(REPEAT, values[REPEAT])
    return AlertSettings.model_validate(fields)


def _addresses(name: str, values: Mapping[str, str]) -> tuple[SecretStr, ...]:
    text = values.get(name, "").strip()
    found = _BETWEEN.split(text) if text else []
    for number, address in enumerate(found, 1):
        if not _ADDRESS.fullmatch(address):
            raise SettingsError(
                f"{name} is malformed: its address number {number} is not like scheme://... (it is not shown, as it "
                "may hold a secret).",
                hint=f"write {name} as addresses of apprise with a space between them, for example "
                "mailto://user:password@example.com, then try it: `tmi-ops alert test`",
            )
    return tuple(SecretStr(address) for address in found)


def _heartbeat(url: str) -> SecretStr | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or re.search(r"\s", url):
        raise SettingsError(
            f"{HEARTBEAT_URL} is malformed: it is not an http or https address (it is not shown, as it may hold a "
            "secret).",
            hint=f"write {HEARTBEAT_URL} as the monitor gives it, for example https://hc-ping.com/...",
        )
    return SecretStr(url)
