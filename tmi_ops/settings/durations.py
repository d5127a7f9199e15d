"""Durations in variables and options: 15m, 4h, 1d 12h."""

from __future__ import annotations

import re
from datetime import timedelta

from tmi_ops.errors import SettingsError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d(?:ays?)?|h(?:ours?)?|m(?:in)?|s(?:ec)?)(?![a-z])", re.IGNORECASE)
_DURATION_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> timedelta:
    """Read `15m`, `4h`, `1d 12h` or `30 min`.

    Raises:
        ValueError: anything else.
    """
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration like 15m, 4h or 1d")
    try:
        return timedelta(seconds=sum(float(number) * _DURATION_SECONDS[unit[0].lower()] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None


def duration_of(name: str, text: str) -> timedelta:
    """Read the duration in the variable `name`.

    Raises:
        SettingsError: it is malformed, or not longer than zero.
    """
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{name} is malformed: {error}.", hint=f"set {name} to a duration such as 4h") from None
    if duration <= timedelta(0):
        raise SettingsError(f"{name} must be longer than zero.", hint=f"set {name} to a duration such as 4h")
    return duration
