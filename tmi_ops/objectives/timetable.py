"""When each schedule runs, derived from the objectives in one place. Pure.

1. WAL catch-up, heartbeat and measurement run three times within the RPO, so that one failed run does not breach it. No
   cron is finer than a minute: an RPO below three minutes needs a receiver.
2. Base backups run often enough that the WAL since the last one replays within half of the RTO.
3. Logical backups run nightly, as in the operations guide; drills weekly; maintenance at quiet hours.
Few schedules start at the full hour, and one that depends on another runs after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tmi_ops.settings import Objectives

TIMES_WITHIN_RPO = 3
# How much faster WAL replays than it was written, assumed until a drill has measured it.
REPLAY_SPEEDUP = 48
SHARE_OF_RTO_FOR_REPLAY = 0.5
FIRST_HOUR = 1  # base backups run before the logical one at two
DAY = timedelta(days=1)
LONGEST_BETWEEN_JUDGEMENTS = timedelta(hours=1)
SENSORS_WITHIN_RPO = 6
SHORTEST_SENSOR_INTERVAL = timedelta(seconds=10)
LONGEST_SENSOR_INTERVAL = timedelta(minutes=5)
LONGEST_GRACE = DAY
SHORTEST_GRACE = timedelta(minutes=5)
# Dumps are nightly: checking them more often would only cost requests to the store.
DUMPS_SEEN_EVERY = timedelta(minutes=15)
# The interval of checks while an objective is not met.
LOOK_AGAIN = timedelta(minutes=1)

# Divisors of the hour and of the day, so close to each other that nothing runs twice as often as needed.
_CRONS = {
    timedelta(minutes=1): "* * * * *",
    **{timedelta(minutes=every): f"*/{every} * * * *" for every in (2, 3, 4, 5, 6, 10, 15, 20, 30)},
    timedelta(hours=1): "0 * * * *",
    **{timedelta(hours=every): f"0 */{every} * * *" for every in (2, 3, 4, 6)},
}
_HOURS_BETWEEN_BASES = (1, 2, 3, 4, 6, 8, 12, 24)


@dataclass(frozen=True)
class Cadence:
    """How often a schedule runs. `every`: the longest time between two runs; `crons`: each starts it."""

    crons: tuple[str, ...]
    every: timedelta
    text: str

    @property
    def late_after(self) -> timedelta:
        """How old its newest result may become, with time for the run itself."""
        return self.every + min(max(self.every / 2, SHORTEST_GRACE), LONGEST_GRACE)


@dataclass(frozen=True)
class Timetable:
    """The cadences of an environment. `sensor_interval`: the time between two checks of a guard while the objective is
    met; `look_again`: while it is not."""

    wal: Cadence
    heartbeat: Cadence
    objectives: Cadence
    full_base: Cadence
    incremental_base: Cadence
    logical: Cadence
    retention: Cadence
    drill: Cadence
    health: Cadence
    access: Cadence
    maintenance: Cadence
    sensor_interval: timedelta

    @property
    def look_again(self) -> timedelta:
        return min(self.sensor_interval, LOOK_AGAIN)


def plan_timetable(objectives: Objectives) -> Timetable:
    """The timetable for these objectives."""
    within_rpo = cadence_within(objectives.rpo)
    between_bases = hours_between_bases(objectives.rto)
    judged = cadence_within(min(objectives.rpo, TIMES_WITHIN_RPO * LONGEST_BETWEEN_JUDGEMENTS))
    return Timetable(
        wal=within_rpo,
        heartbeat=within_rpo,
        objectives=judged,
        full_base=Cadence((f"0 {FIRST_HOUR} * * 0",), 7 * DAY, f"Sundays at {FIRST_HOUR:02}:00"),
        incremental_base=_incremental_cadence(between_bases),
        logical=Cadence(("0 2 * * *",), DAY, "daily at 02:00"),
        retention=Cadence(("20 5 * * *",), DAY, "daily at 05:20"),
        drill=Cadence(("0 4 * * 0",), 7 * DAY, "Sundays at 04:00"),
        health=Cadence(("7 * * * *",), timedelta(hours=1), "hourly"),
        access=Cadence(("37 5 * * *",), DAY, "daily at 05:37"),
        maintenance=Cadence(("30 3 * * *",), DAY, "daily at 03:30"),
        sensor_interval=_sensor_interval(objectives.rpo),
    )


def cadence_within(objective: timedelta) -> Cadence:
    """The rarest cron that runs three times within the objective; every minute if none does."""
    every = max((some for some in _CRONS if some * TIMES_WITHIN_RPO <= objective), default=min(_CRONS))
    return Cadence((_CRONS[every],), every, f"every {_format(every)}")


def hours_between_bases(rto: timedelta) -> int:
    """Hours of WAL that replay within the share of the RTO for replay; a divisor of the day."""
    affordable = rto * SHARE_OF_RTO_FOR_REPLAY * REPLAY_SPEEDUP / timedelta(hours=1)
    return max((hours for hours in _HOURS_BETWEEN_BASES if hours <= affordable), default=_HOURS_BETWEEN_BASES[0])


def _incremental_cadence(hours: int) -> Cadence:
    """The cadence of incremental backups: every `hours` hours, except when the full backup runs on Sunday."""
    at = range(FIRST_HOUR % hours, 24, hours)
    on_other_days = f"0 {','.join(map(str, at))} * * 1-6"
    on_sundays = [hour for hour in at if hour != FIRST_HOUR]
    crons = (on_other_days, *([f"0 {','.join(map(str, on_sundays))} * * 0"] if on_sundays else []))
    words = f"every {hours} hours, from {FIRST_HOUR:02}:00" if on_sundays else f"other days at {FIRST_HOUR:02}:00"
    return Cadence(crons, timedelta(hours=hours), words)


def _sensor_interval(rpo: timedelta) -> timedelta:
    """The interval between two checks, in whole seconds as Dagster requires."""
    wanted = timedelta(seconds=rpo // (SENSORS_WITHIN_RPO * timedelta(seconds=1)))
    return min(max(wanted, SHORTEST_SENSOR_INTERVAL), LONGEST_SENSOR_INTERVAL)


def _format(every: timedelta) -> str:
    minutes = int(every / timedelta(minutes=1))
    if minutes % 60:
        return "minute" if minutes == 1 else f"{minutes} minutes"
    return "hour" if minutes == 60 else f"{minutes // 60} hours"
