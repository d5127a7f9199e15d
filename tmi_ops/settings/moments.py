"""Reads a moment as people and programs write it, and as our own screens show it.

A local time exists twice when clocks are put back, and never when they are put forward; both are refused, and the error
shows both readings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tmi_ops.settings.durations import parse_duration

_AGO = re.compile(r"(.+?)\s+ago", re.IGNORECASE)
# As our screens show it: `2026-11-27 18:06:45 UTC (5 min ago)`.
_ASIDE = re.compile(r"\s*\([^()]*\)$")
_NAMED_ZONE = re.compile(r"(.*[\d.])\s*([A-Za-z][A-Za-z0-9_+/-]*)")
_UTC = ("utc", "gmt", "z", "zulu")
EXAMPLES = "'2026-11-24 03:44:13 UTC', '2026-11-24 03:44:13+00' or '15m ago'"


@dataclass(frozen=True)
class Moment:
    """`at` is aware, in UTC. `zone`: the zone that was assumed, in words; empty if the text has one."""

    at: datetime
    zone: str = ""


def read_moment(text: str, *, now: datetime | None = None, zone: tzinfo | None = None) -> Moment:
    """Read `2026-11-24 03:44:13+00`, `2026-11-24T03:44`, `2026-11-24 03:44:13.5 UTC`, `2026-11-24 03:44 Europe/Berlin`,
    `15m ago`, `now`.

    Args:
        now: what `ago` counts from; a later time is in the future. None: this machine's clock.
        zone: the zone of times without one; None: this machine's.

    Raises:
        ValueError: it is malformed, in the future, or a local time that exists twice or never.
    """
    now = datetime.now(UTC) if now is None else now
    words = _ASIDE.sub("", text.strip())
    if words.lower() == "now":
        return Moment(now.astimezone(UTC))
    if match := _AGO.fullmatch(words):
        return Moment((now - parse_duration(match[1])).astimezone(UTC))
    found = _written(text, words, zone)
    if found.at > now:
        raise ValueError(f"{text!r} is in the future ({_utc(found.at)})")
    return found


def _written(text: str, words: str, zone: tzinfo | None) -> Moment:
    named: tzinfo | None = None
    if (match := _NAMED_ZONE.fullmatch(words)) and not match[2].lower().startswith("t"):
        words, named = match[1], _zone_of(text, match[2])
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        raise ValueError(f"{text!r} is not a time such as {EXAMPLES}") from None
    if found.tzinfo is not None:
        if named is not None:
            raise ValueError(f"{text!r} names two time zones")
        return Moment(found.astimezone(UTC))
    at = _once(text, found, zone if named is None else named)
    if named is not None:
        return Moment(at)
    return Moment(at, _describe_zone(at, zone))


def _zone_of(text: str, name: str) -> tzinfo:
    if name.lower() in _UTC:
        return UTC
    try:
        if "/" in name:  # an abbreviation such as CST means several zones
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError(f"{text!r} has an unknown time zone: write UTC, an offset (+02), or a name such as Europe/Berlin")


def _once(text: str, local: datetime, zone: tzinfo | None) -> datetime:
    """The moment of a local time, if there is exactly one."""
    readings = [_at(local, fold, zone) for fold in (0, 1)]
    if readings[0] == readings[1]:
        return readings[0]
    both = " or ".join(f"'{_utc(one)}'" for one in sorted(readings))
    where = zone or "the time zone of this machine"
    if all(_local(one, zone) == local for one in readings):
        raise ValueError(f"{text!r} exists twice in {where}, as clocks were put back: write {both}")
    raise ValueError(f"{text!r} never existed in {where}, as clocks were put forward: write {both}")


def _at(local: datetime, fold: int, zone: tzinfo | None) -> datetime:
    local = local.replace(fold=fold)
    return (local if zone is None else local.replace(tzinfo=zone)).astimezone(UTC)


def _local(at: datetime, zone: tzinfo | None) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def _describe_zone(at: datetime, zone: tzinfo | None) -> str:
    local = at.astimezone(zone)
    offset = f"UTC{local:%z}" if local.utcoffset() else "UTC"
    whose = "the time zone of this machine" if zone is None else "the time zone of times without one"
    name = f"{local:%Z}"
    return f"{whose}, {name if name == offset else f'{name} ({offset})'}"


def _utc(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S.%f UTC}" if at.microsecond else f"{at:%Y-%m-%d %H:%M:%S UTC}"
