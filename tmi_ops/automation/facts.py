"""What Dagster's database says about one environment. Times are by the clock of that database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Kind(StrEnum):
    """Whether an instigator is a schedule or a sensor."""

    SCHEDULE = "schedule"
    SENSOR = "sensor"


@dataclass(frozen=True)
class Daemon:
    """A thread of Dagster's daemon. `error`: its last error, if it fails."""

    name: str
    reported_at: datetime
    error: str = ""


@dataclass(frozen=True)
class Tick:
    """A tick of a sensor or a schedule. `error`: why it failed; empty if it did not."""

    at: datetime
    error: str = ""


@dataclass(frozen=True)
class Instigator:
    """A schedule or a sensor.

    Attributes:
        crons: when a schedule is due.
        every: how often a sensor ticks; None: unknown.
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
    """A run that has not started."""

    run_id: str
    job: str
    since: datetime


@dataclass(frozen=True)
class Held:
    """A pool slot held by a run that has ended or does not exist."""

    pool: str
    run_id: str


@dataclass(frozen=True)
class AutomationFacts:
    """Everything that was read. `now`: by the database's clock. `unrepeated`: failed runs that Dagster should have
    retried."""

    now: datetime
    daemons: tuple[Daemon, ...] = ()
    instigators: tuple[Instigator, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    unrepeated: tuple[Waiting, ...] = ()
    held: tuple[Held, ...] = ()
