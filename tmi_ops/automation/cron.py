"""The next time of a cron expression of five fields, in a time zone. Pure.

Source: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/crontab.html: if both day of month and day of week
are restricted, either is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
# 29 February on a given weekday may be 40 years away, but none of our crons is that rare.
_DAYS_LOOKED_AT = 366 * 4
_SUNDAY_AGAIN = 7


def next_time(crons: Sequence[str], after: datetime, timezone: str) -> datetime | None:
    """The first time after `after` (aware) of any of the expressions; None if there is none for years.

    Raises:
        ValueError: an expression is malformed.
    """
    found = [moment for cron in crons if (moment := _next(cron, after.astimezone(ZoneInfo(timezone)))) is not None]
    return min(found, default=None)


def _next(cron: str, after: datetime) -> datetime | None:
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"{cron!r} does not have five fields")
    minutes, hours, days, months, weekdays = (
        _numbers(part, low, high, cron) for part, (low, high) in zip(parts, _FIELDS, strict=True)
    )
    weekdays = {0 if day == _SUNDAY_AGAIN else day for day in weekdays}
    either = not parts[2].startswith("*") and not parts[4].startswith("*")
    for offset in range(_DAYS_LOOKED_AT):
        day = after.date() + timedelta(days=offset)
        by_date, by_weekday = day.day in days, day.isoweekday() % _SUNDAY_AGAIN in weekdays
        if day.month not in months or not (by_date or by_weekday if either else by_date and by_weekday):
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=after.tzinfo)
                if moment > after:
                    return moment
    return None


def _numbers(field: str, low: int, high: int, cron: str) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        if not (first.isdigit() and (last or first).isdigit() and (step or "1").isdigit()):
            raise ValueError(f"{cron!r} contains {part!r}, which is not a number, range or step")
        end = high if step and not last else int(last or first)
        if not low <= int(first) <= end <= high or int(step or "1") == 0:
            raise ValueError(f"{cron!r} contains {part!r}, which is out of range")
        found |= set(range(int(first), end + 1, int(step or "1")))
    return found
