"""When a cron expression comes next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tmi_ops.automation.cron import next_time
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops.settings import OBJECTIVES

WEDNESDAY_NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)

CASES = {
    "every minute": (["* * * * *"], "2026-11-25T12:01"),
    "every five minutes": (["*/5 * * * *"], "2026-11-25T12:05"),
    "this very minute has begun": (["0 12 * * *"], "2026-11-26T12:00"),
    "later today": (["30 3,15 * * *"], "2026-11-25T15:30"),
    "Sundays": (["0 1 * * 0"], "2026-11-29T01:00"),
    "Sundays by their other number": (["0 1 * * 7"], "2026-11-29T01:00"),
    "on weekdays": (["0 1 * * 1-6"], "2026-11-26T01:00"),
    "the first of a month": (["0 0 1 * *"], "2026-12-01T00:00"),
    "either the 13th or a Friday": (["0 0 13 * 5"], "2026-11-27T00:00"),
    "a range with a step": (["10-50/20 12 * * *"], "2026-11-25T12:10"),
    "a beginning with a step": (["40/10 12 * * *"], "2026-11-25T12:40"),
    "the next leap day": (["0 0 29 2 *"], "2028-02-29T00:00"),
    "the soonest of several": (["0 1 * * 0", "0 13 * * *"], "2026-11-25T13:00"),
    "no expression at all": ([], None),
}


@pytest.mark.parametrize(("crons", "expected"), CASES.values(), ids=CASES.keys())
def test_the_next_time(crons: list[str], expected: str | None) -> None:
    found = next_time(crons, WEDNESDAY_NOON, "UTC")
    assert (f"{found:%Y-%m-%dT%H:%M}" if found else None) == expected


def test_hours_are_those_of_the_time_zone() -> None:
    found = next_time(["0 2 * * *"], WEDNESDAY_NOON, "America/New_York")
    assert found is not None
    assert found.astimezone(UTC) == datetime(2026, 11, 26, 7, 0, tzinfo=UTC)


def test_an_hour_that_the_clocks_skip_runs_after_it() -> None:
    before = datetime(2027, 3, 27, 12, 0, tzinfo=UTC)
    found = next_time(["30 2 * * *"], before, "Europe/Berlin")
    assert found is not None
    assert found.astimezone(UTC) == datetime(2027, 3, 28, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "60 * * * *", "* 24 * * *", "x * * * *", "5-1 * * * *", "*/0 * * * *", "0 0 31 2 *"]
)
def test_what_is_no_expression_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match="cron expression"):
        next_time([cron], WEDNESDAY_NOON, "UTC")


@pytest.mark.parametrize("environment", OBJECTIVES)
def test_every_schedule_of_the_timetable_has_a_next_time(environment: str) -> None:
    timetable = plan_timetable(OBJECTIVES[environment])
    for name in ("wal", "full_base", "incremental_base", "logical", "drill", "health", "retention"):
        assert next_time(getattr(timetable, name).crons, WEDNESDAY_NOON, "UTC") is not None
