from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, DagsterRunStatus, asset, materialize

from tmi_ops.orchestration.policies import ENVIRONMENT_TAG
from tmi_ops.orchestration.records import KEPT, RUNS_AT_ONCE, EndedRun, forget_runs, forgettable
from tmi_ops.orchestration.schedules import staggered

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SUCCESS, FAILURE = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE
MOMENT = timedelta(seconds=1)


def ended(name: str, status: DagsterRunStatus, age: timedelta) -> EndedRun:
    return EndedRun(name, status, NOW - age)


def test_runs_are_forgotten_once_they_are_old_failed_ones_later_and_an_asset_s_newest_never() -> None:
    runs = [
        ended("young", SUCCESS, KEPT[SUCCESS]),
        ended("old", SUCCESS, KEPT[SUCCESS] + MOMENT),
        ended("failed", FAILURE, KEPT[FAILURE]),
        ended("failed long ago", FAILURE, KEPT[FAILURE] + MOMENT),
        ended("running", DagsterRunStatus.STARTED, timedelta(days=400)),
        ended("newest of its asset", SUCCESS, timedelta(days=400)),
    ]
    assert forgettable(runs, {"newest of its asset"}, NOW) == ["failed long ago", "old"]
    assert KEPT[FAILURE] > KEPT[SUCCESS]


def test_a_tick_forgets_the_oldest_and_no_more_than_it_has_time_for() -> None:
    runs = [ended(str(days), SUCCESS, timedelta(days=days)) for days in range(20, 20 + RUNS_AT_ONCE + 5)]
    found = forgettable(runs, (), NOW)
    assert len(found) == RUNS_AT_ONCE
    assert found[0] == str(20 + RUNS_AT_ONCE + 4)


def test_the_record_of_an_old_run_goes_with_its_events_and_other_environments_keep_theirs() -> None:
    @asset
    def kept() -> None:
        """Materialized twice."""

    with DagsterInstance.ephemeral() as instance:
        runs = [
            materialize([kept], instance=instance, tags={ENVIRONMENT_TAG: of}).run_id
            for of in ("production", "staging", "production")
        ]
        later = datetime.now(UTC) + KEPT[SUCCESS]
        assert forget_runs(instance, "production", later - timedelta(hours=1)) == 0
        assert forget_runs(instance, "production", later + timedelta(hours=1)) == 1
        assert {run.run_id for run in instance.get_runs()} == set(runs[1:])
        assert not instance.all_logs(runs[0])
        assert instance.all_logs(runs[2])


@pytest.mark.parametrize(("cron", "minutes"), [("*/5 * * * *", 5), ("*/2 * * * *", 2), ("*/30 * * * *", 30)])
def test_what_comes_equally_often_begins_in_different_minutes_of_each_environment(cron: str, minutes: int) -> None:
    def first(environment: str, turn: int) -> int:
        told = staggered(cron, environment, turn).partition("/")[0]
        return 0 if told == "*" else int(told.removesuffix("-59"))

    for environment in ("development", "staging", "production"):
        assert first(environment, 0) != first(environment, 1)
        assert 0 <= first(environment, 0) < minutes
    assert len({first(f"shop-{number}", 0) for number in range(20)}) > min(minutes, 10) // 2


def test_a_cron_of_a_certain_hour_or_of_every_minute_stays_as_it_is() -> None:
    for cron in ("* * * * *", "0 2 * * *", "0 */6 * * *", "7 * * * *"):
        assert staggered(cron, "production", 1) == cron
