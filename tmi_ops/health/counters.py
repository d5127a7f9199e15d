"""Rates, computed from two readings of the server's counters. Resets, restarts and another server are detected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from tmi_ops.health.answer import CannotTell, Cause


class CounterGroup(BaseModel):
    """Counters that are reset together.

    Attributes:
        reset_at: None where PostgreSQL does not say, or never reset them.
        only_grow: a counter that decreased was reset, whatever `reset_at` says; sizes may decrease.
    """

    model_config = ConfigDict(frozen=True)

    reset_at: datetime | None = None
    only_grow: bool = True
    values: Mapping[str, float]


class Counters(BaseModel):
    """The counters at one time (by the server's clock).

    Attributes:
        system_identifier: of the cluster, so that a restored or replaced server is not compared with the old one.
        marks: positions that are text, such as the name of the server's log file.
    """

    model_config = ConfigDict(frozen=True)

    taken_at: datetime
    started_at: datetime
    system_identifier: str
    database: str
    groups: Mapping[str, CounterGroup]
    marks: Mapping[str, str] = {}


@dataclass(frozen=True)
class Change:
    """How much the counters of one group changed between two readings."""

    seconds: float
    values: Mapping[str, float]

    def per_second(self, name: str) -> float:
        return self.values[name] / self.seconds

    def per_day(self, name: str) -> float:
        return self.per_second(name) * 86400


@dataclass(frozen=True)
class Window:
    """The current reading, the last one, and those of the last two days, the oldest first."""

    current: Counters
    last: Counters | None = None
    days: tuple[Counters, ...] = ()

    @property
    def restarted(self) -> bool:
        """Whether the server was restarted since the last reading."""
        return self.last is not None and self.last.started_at != self.current.started_at

    def change(self, group: str, *, over_days: bool = False) -> Change:
        """The change since the last reading or, with `over_days`, since the oldest reading of the last two days.

        Counters that exist in only one of the readings are left out.

        Raises:
            CannotTell: there is no earlier reading to compare with, or the counters were reset in between.
        """
        earlier = self.days[0] if over_days and self.days else self.last
        if group not in self.current.groups:
            raise CannotTell(Cause.RIGHT, f"The role may not read the server's {group} counters", "", ())
        if earlier is None or group not in earlier.groups:
            raise CannotTell(Cause.TOO_EARLY, "This is the first reading; the rate is known from the next one on.")
        now, then = self.current.groups[group], earlier.groups[group]
        seconds = (self.current.taken_at - earlier.taken_at).total_seconds()
        if seconds <= 0:
            raise CannotTell(
                Cause.TOO_EARLY, "The server's clock went back; the rate is known from the next reading on."
            )
        values = {name: now.values[name] - then.values[name] for name in now.values if name in then.values}
        # PostgreSQL sets a new database's reset time some time after creating it: that is no reset.
        was_reset = then.reset_at is not None and now.reset_at != then.reset_at
        if was_reset or (now.only_grow and min(values.values(), default=0) < 0):
            when = f" at {now.reset_at:%Y-%m-%d %H:%M}" if now.reset_at else ""
            raise CannotTell(
                Cause.TOO_EARLY,
                f"The statistics were reset{when}, after the last reading; the rate is known from the next one on.",
            )
        return Change(seconds, values)

    def maybe(self, group: str, *, over_days: bool = False) -> Change | None:
        """`change`, or None where there is none."""
        try:
            return self.change(group, over_days=over_days)
        except CannotTell:
            return None


def comparable(earlier: Counters, current: Counters) -> bool:
    """Whether the two are of the same database of the same cluster, in this order."""
    same = (earlier.system_identifier, earlier.database) == (current.system_identifier, current.database)
    return same and earlier.taken_at <= current.taken_at
