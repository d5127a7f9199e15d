"""What Dagster's records say of one environment, each thing reduced to what matters. Ages are by the records' clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Kind(StrEnum):
    """What looks or begins by itself."""

    SCHEDULE = "schedule"
    SENSOR = "sensor"


@dataclass(frozen=True)
class Daemon:
    """A thread of Dagster's daemon. `error`: what it said last, where it fails."""

    name: str
    reported_at: datetime
    error: str = ""


@dataclass(frozen=True)
class Tick:
    """A look of a sensor, or a time at which a schedule was due. `error`: why it failed; empty where it did not."""

    at: datetime
    error: str = ""


@dataclass(frozen=True)
class Instigator:
    """A schedule or a sensor.

    Attributes:
        crons: when a schedule is due.
        every: how often a sensor looks; None: not told.
        since: when it was switched on, or first seen.
        last: its newest tick; None: there was none, or it is no longer kept.
    """

    name: str
    kind: Kind
    on: bool
    since: datetime
    crons: tuple[str, ...] = ()
    every: timedelta | None = None
    last: Tick | None = None


@dataclass(frozen=True)
class Waiting:
    """A run that has not begun."""

    run_id: str
    job: str
    since: datetime


@dataclass(frozen=True)
class Held:
    """A place in a pool that a run holds although it is over, or was never heard of."""

    pool: str
    run_id: str


@dataclass(frozen=True)
class AutomationFacts:
    """All of it. `now`: by the records' own clock. `unrepeated`: failed runs that Dagster meant to repeat."""

    now: datetime
    daemons: tuple[Daemon, ...] = ()
    instigators: tuple[Instigator, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    unrepeated: tuple[Waiting, ...] = ()
    held: tuple[Held, ...] = ()
