"""Timetables side by side."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tmi_ops.objectives.staggering import shifted, shifted_cron
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops.settings import OBJECTIVES, Objectives

PRODUCTION = plan_timetable(OBJECTIVES["production"])


@pytest.mark.parametrize(
    ("cron", "minutes", "then"),
    [
        ("* * * * *", 37, "* * * * *"),
        ("*/5 * * * *", 37, "*/5 * * * *"),
        ("0 * * * *", 37, "37 * * * *"),
        ("7 * * * *", 59, "6 * * * *"),
        ("0 */6 * * *", 14, "14 */6 * * *"),
        ("0 2 * * *", 59, "59 2 * * *"),
        ("20 5 * * *", 41, "21 5 * * *"),
        ("0 1,13 * * 1-6", 37, "37 1,13 * * 1-6"),
    ],
)
def test_a_cron_moves_within_its_hour(cron: str, minutes: int, then: str) -> None:
    assert shifted_cron(cron, minutes) == then


def test_the_first_keeps_its_timetable_and_sixty_differ() -> None:
    assert shifted(PRODUCTION, 0) == PRODUCTION
    assert len({shifted(PRODUCTION, number).logical.crons for number in range(60)}) == 60


def test_what_rests_on_another_still_follows_it_and_as_often() -> None:
    for number in range(60):
        moved = shifted(PRODUCTION, number)
        minutes = [
            int(hour) * 60 + int(minute)
            for one in (moved.full_base, moved.logical, moved.maintenance, moved.drill, moved.retention)
            for minute, hour in [one.crons[0].split()[:2]]
        ]
        assert minutes == sorted(minutes)
        assert moved.logical.every == PRODUCTION.logical.every
        assert moved.sensor_interval == PRODUCTION.sensor_interval


def test_the_words_say_the_time_that_it_is() -> None:
    moved = shifted(plan_timetable(Objectives(rpo=timedelta(hours=4), rto=timedelta(hours=2))), 1)
    assert (moved.logical.text, moved.full_base.text) == ("daily at 02:37", "Sundays at 01:37")
    assert moved.retention.text == "daily at 05:57"
    assert moved.health.text == "hourly"
