"""The limits of a maintenance run: when, how long, and how long it waits for locks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tmi_ops.errors import SettingsError
from tmi_ops.health.maintenance.steps import KINDS, Kind

WINDOW_VARIABLE = "TMI_OPS_MAINTENANCE_WINDOW"
TIMEZONE_VARIABLE = "TMI_OPS_TIMEZONE"
_WINDOW = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")


@dataclass(frozen=True)
class Window:
    """The same hours every day, in one time zone; `23:00-04:00` spans midnight."""

    begin: time
    end: time
    zone: ZoneInfo

    def remaining(self, now: datetime) -> timedelta | None:
        """How long the window stays open; None if it is closed."""
        local = now.astimezone(self.zone)
        for day in (local.date() - timedelta(days=1), local.date()):
            begin = datetime.combine(day, self.begin, self.zone)
            ends = day if self.begin < self.end else day + timedelta(days=1)
            end = datetime.combine(ends, self.end, self.zone)
            if begin <= local < end:
                # Both in UTC: the difference of two local times ignores a change to or from summer time.
                return end.astimezone(ZoneInfo("UTC")) - now.astimezone(ZoneInfo("UTC"))
        return None

    def describe(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {self.zone.key}"


def parse_window(text: str, zone: str) -> Window:
    """Parse `01:00-05:00`.

    Raises:
        SettingsError: it is malformed, empty, or the time zone is unknown.
    """
    known = known_zone(zone)
    hours = _hours(text)
    if hours is None or hours[0] == hours[1]:
        raise SettingsError(f"The maintenance window is malformed: {text!r}.", hint="write it like 01:00-05:00")
    return Window(*hours, known)


def known_zone(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        SettingsError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise SettingsError(
            f"{TIMEZONE_VARIABLE} names an unknown time zone: {name!r}.",
            hint="use a name such as Europe/Zurich or UTC",
        ) from None


def _hours(text: str) -> tuple[time, time] | None:
    match = _WINDOW.fullmatch(text)
    if match is None:
        return None
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
    try:
        return time(begin_hour, begin_minute), time(end_hour, end_minute)
    except ValueError:
        return None


@dataclass(frozen=True)
class Limits:
    """What a run may do.

    Attributes:
        kinds: of the steps to plan.
        terminate: whether sessions may be ended; otherwise they are only listed.
        idle_s, running_s: end a session after this long idle in a transaction, or a query after running this long.
        lock_timeout_s: how long VACUUM and ANALYZE wait for their lock.
        concurrent_wait_s: how long a CONCURRENTLY waits for older transactions; it blocks nobody meanwhile.
        max_duration_s: after this, no step begins, and the running one is cancelled.
        grace_s: how long a cancelled query may take to end before its session is ended.
    """

    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset(KINDS))
    terminate: bool = False
    idle_s: float = 600.0
    running_s: float = 1800.0
    window: Window | None = None
    lock_timeout_s: float = 5.0
    concurrent_wait_s: float = 300.0
    max_duration_s: float = 3600.0
    grace_s: float = 5.0
