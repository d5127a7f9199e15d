"""URLs of the alert channels and of the external monitor (the dead man's switch). Every URL is a secret."""

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

# A URL may contain commas (`?to=a@example.com,b@example.com`), so it ends only where the next one starts.
_BETWEEN = re.compile(r"[\s,;]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s]+")


def alerts_from(values: Mapping[str, str]) -> AlertSettings:
    """Raises:
    SettingsError: a URL or the interval is malformed. The error names the variable, but not its value.
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
                f"{name} is malformed: URL number {number} does not start with scheme:// (it is not shown, because it "
                "may contain a secret).",
                hint=f"set {name} to apprise URLs separated by spaces, for example "
                "mailto://user:password@example.com, then run `tmi-ops alert test`",
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
            f"{HEARTBEAT_URL} is malformed: it is not an http or https URL (it is not shown, because it may contain a "
            "secret).",
            hint=f"set {HEARTBEAT_URL} to the URL that the monitor shows, for example https://hc-ping.com/...",
        )
    return SecretStr(url)
