"""Timetables of several environments, shifted by minutes so that they do not all start at once. Pure.

Each schedule keeps its hour, so one that depends on another still runs after it: base backups before the nightly dumps.
Schedules of every few minutes are shifted by the environment's name (`orchestration/schedules.py`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tmi_ops.objectives.timetable import Cadence, Timetable

_MINUTES = 60
# Coprime with 60: the first sixty all differ, neighbours are far apart, and adding one does not move the others.
_STEP = 37
_CLOCK = re.compile(r"\b(\d\d):(\d\d)\b")


def shifted(timetable: Timetable, number: int) -> Timetable:
    """The timetable of environment `number`, counted from 0; that of the first is unchanged."""
    minutes = number * _STEP % _MINUTES
    cadences: dict[str, Any] = {
        field.name: _shifted_cadence(value, minutes)
        for field in dataclasses.fields(timetable)
        if isinstance(value := getattr(timetable, field.name), Cadence)
    }
    return dataclasses.replace(timetable, **cadences)


def shifted_cron(cron: str, minutes: int) -> str:
    """A cron of the timetable, this many minutes later within its hour."""
    minute, *rest = cron.split()
    return " ".join([_shifted_minute(minute, minutes, every_hour=rest[0] == "*"), *rest])


def _shifted_minute(minute: str, by: int, *, every_hour: bool) -> str:
    if minute.startswith("*"):
        return minute
    begins = int(minute)
    return str((begins + by) % _MINUTES if every_hour else begins + by % (_MINUTES - begins))


def _shifted_cadence(cadence: Cadence, minutes: int) -> Cadence:
    def clock(found: re.Match[str]) -> str:
        return f"{found[1]}:{int(_shifted_minute(found[2], minutes, every_hour=False)):02}"

    crons = tuple(shifted_cron(cron, minutes) for cron in cadence.crons)
    return dataclasses.replace(cadence, crons=crons, text=_CLOCK.sub(clock, cadence.text))
