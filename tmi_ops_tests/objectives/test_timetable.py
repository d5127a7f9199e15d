"""The timetable over many objectives; what a cron means is asked of Dagster, which will carry it out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from dagster._utils.schedules import cron_string_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.automation.switch import AUTOMATION_VARIABLE, read_automation
from tmi_ops.errors import SettingsError
from tmi_ops.health.maintenance.limits import TIMEZONE_VARIABLE
from tmi_ops.objectives.timetable import (
    LONGEST_SENSOR_INTERVAL,
    REPLAY_SPEEDUP,
    SHARE_OF_RTO_FOR_REPLAY,
    SHORTEST_SENSOR_INTERVAL,
    Cadence,
    Timetable,
    plan_timetable,
)
from tmi_ops.settings import OBJECTIVES, Objectives

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
FORTNIGHT = timedelta(days=14)
durations = st.timedeltas(min_value=timedelta(seconds=5), max_value=timedelta(days=30))
objectives = st.builds(Objectives, rpo=durations, rto=durations)


def beginnings(*cadences: Cadence, within: timedelta = FORTNIGHT) -> list[datetime]:
    found: set[datetime] = set()
    for cron in (cron for cadence in cadences for cron in cadence.crons):
        for at in cron_string_iterator(MONDAY.timestamp(), cron, "UTC"):
            if at >= MONDAY + within:
                break
            found.add(at)
    return sorted(found)


def longest_gap(*cadences: Cadence, within: timedelta = FORTNIGHT) -> timedelta:
    return max(later - earlier for earlier, later in pairwise(beginnings(*cadences, within=within)))


def judged_often(timetable: Timetable) -> timedelta:
    return longest_gap(timetable.objectives, within=timedelta(days=1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(objectives)
def test_what_carries_the_rpo_comes_three_times_within_it_or_every_minute(promised: Objectives) -> None:
    timetable = plan_timetable(promised)
    gap = longest_gap(timetable.wal, within=timedelta(days=1))
    assert gap == timetable.wal.every
    assert 3 * gap <= promised.rpo or gap == timedelta(minutes=1)
    assert judged_often(timetable) <= max(gap, timedelta(minutes=1))
    assert longest_gap(timetable.heartbeat, within=timedelta(days=1)) == gap


@settings(max_examples=60, deadline=None, derandomize=True)
@given(objectives)
def test_the_wal_between_two_base_backups_replays_within_its_share_of_the_rto(promised: Objectives) -> None:
    timetable = plan_timetable(promised)
    gap = longest_gap(timetable.full_base, timetable.incremental_base)
    replay = gap / REPLAY_SPEEDUP
    assert replay <= promised.rto * SHARE_OF_RTO_FOR_REPLAY or gap == timedelta(hours=1)
    assert gap <= timedelta(days=1)
    at_once = set(beginnings(timetable.full_base)) & set(beginnings(timetable.incremental_base))
    assert not at_once


@settings(derandomize=True)
@given(objectives)
def test_sensors_look_several_times_within_the_rpo_but_never_so_often_that_they_are_the_load(
    promised: Objectives,
) -> None:
    interval = plan_timetable(promised).sensor_interval
    assert SHORTEST_SENSOR_INTERVAL <= interval <= LONGEST_SENSOR_INTERVAL
    assert 6 * interval <= promised.rpo or interval == SHORTEST_SENSOR_INTERVAL
    assert plan_timetable(promised).look_again <= min(interval, timedelta(minutes=1))


@pytest.mark.parametrize(
    ("environment", "wal", "bases", "sensors"),
    [
        ("development", "0 */6 * * *", ("0 1 * * 1-6",), timedelta(minutes=5)),
        ("staging", "0 * * * *", ("0 1 * * 1-6",), timedelta(minutes=5)),
        ("production", "*/5 * * * *", ("0 1,13 * * 1-6", "0 13 * * 0"), timedelta(seconds=150)),
    ],
)
def test_the_guides_environments(environment: str, wal: str, bases: tuple[str, ...], sensors: timedelta) -> None:
    timetable = plan_timetable(OBJECTIVES[environment])
    assert timetable.wal.crons == (wal,)
    assert timetable.incremental_base.crons == bases
    assert timetable.logical.crons == ("0 2 * * *",)  # the guide's line
    assert timetable.sensor_interval == sensors
    assert timetable.look_again == timedelta(minutes=1)


def test_things_run_by_themselves_where_data_matter_and_on_a_laptop_when_asked() -> None:
    assert read_automation("production", {}).running
    assert read_automation("staging", {}).running
    assert not read_automation("development", {}).running
    assert read_automation("development", {AUTOMATION_VARIABLE: "on"}).running
    assert not read_automation("production", {AUTOMATION_VARIABLE: "Off"}).running


@pytest.mark.parametrize(
    ("variables", "words"),
    [({AUTOMATION_VARIABLE: "maybe"}, "neither on nor off"), ({TIMEZONE_VARIABLE: "Mars/Base"}, "unknown time zone")],
)
def test_a_switch_or_a_time_zone_that_means_nothing_is_refused(variables: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_automation("production", variables)


@pytest.mark.parametrize(
    ("rpo", "every"),
    [
        (timedelta(minutes=3), "minute"),
        (timedelta(minutes=15), "5 minutes"),
        (timedelta(hours=3), "hour"),
        (timedelta(hours=24), "6 hours"),
    ],
)
def test_a_cadence_is_said_in_the_largest_unit_that_says_it(rpo: timedelta, every: str) -> None:
    words = plan_timetable(Objectives(rpo=rpo, rto=timedelta(hours=4))).wal.text
    assert f"every {every}" in words
    assert f"every {every}s" not in words


def test_incremental_backups_leave_the_full_one_sundays_first_hour() -> None:
    half_a_day = plan_timetable(Objectives(rpo=timedelta(minutes=15), rto=timedelta(minutes=30))).incremental_base
    assert half_a_day.crons == ("0 1,13 * * 1-6", "0 13 * * 0")
    assert half_a_day.text == "every 12 hours, from 01:00"
    a_day = plan_timetable(Objectives(rpo=timedelta(hours=4), rto=timedelta(hours=2))).incremental_base
    assert (a_day.crons, a_day.text) == (("0 1 * * 1-6",), "other days at 01:00")
