"""What is wrong with that which should run by itself, from built facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.automation.facts import AutomationFacts, Daemon, Held, Instigator, Kind, Tick, Waiting
from tmi_ops.automation.judging import CLOCKS_DIFFER, DAEMON_LATE, TICK_GRACE, judge_automation, pace_of
from tmi_ops.checks.finding import Severity

NOW = datetime(2026, 11, 25, 12, 2, tzinfo=UTC)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
DAY = timedelta(days=1)
WELL = AutomationFacts(NOW, daemons=(Daemon("SCHEDULER", NOW - 20 * SECOND), Daemon("SENSOR", NOW - 20 * SECOND)))
NIGHTLY = Instigator("nightly_logical_backup", Kind.SCHEDULE, True, NOW - 30 * DAY, crons=("0 2 * * *",))
GUARD = Instigator("rpo_guard", Kind.SENSOR, True, NOW - 30 * DAY, every=5 * MINUTE)


def said(facts: AutomationFacts) -> list[str]:
    return [one.what for one in judge_automation(facts, "UTC")]


def ticked(one: Instigator, at: datetime, error: str = "") -> AutomationFacts:
    return replace(WELL, instigators=(replace(one, last=Tick(at, error)),))


def test_what_runs_as_it_should_is_not_mentioned() -> None:
    assert said(WELL) == []
    assert said(ticked(NIGHTLY, NOW.replace(hour=2, minute=0))) == []
    assert said(ticked(GUARD, NOW - 5 * MINUTE)) == []


@pytest.mark.parametrize(("ago", "silent"), [(DAEMON_LATE, False), (DAEMON_LATE + SECOND, True)])
def test_a_daemon_that_is_silent_is_the_one_thing_that_is_told(ago: timedelta, silent: bool) -> None:
    missed = ticked(NIGHTLY, NOW - 3 * DAY)
    facts = replace(missed, daemons=tuple(replace(one, reported_at=NOW - ago) for one in WELL.daemons))
    assert any("has not reported for" in what for what in said(facts)) is silent
    assert (len(said(facts)) == 1 and "the schedule" not in said(facts)[0]) is silent
    assert said(AutomationFacts(NOW)) == ["Dagster's daemon has never reported: no schedule or sensor will run"]


def test_one_thread_of_the_daemon_that_hangs_or_fails_is_named() -> None:
    hangs = replace(WELL, daemons=(WELL.daemons[0], Daemon("SENSOR", NOW - 6 * MINUTE)))
    assert [(one.severity, one.subject) for one in judge_automation(hangs, "UTC")] == [(Severity.WARNING, "SENSOR")]
    fails = replace(WELL, daemons=(Daemon("SCHEDULER", NOW, "ImportError: tmi_ops"), WELL.daemons[1]))
    assert said(fails) == ["SCHEDULER: ImportError: tmi_ops"]


@pytest.mark.parametrize(
    ("newest", "now", "overdue"),
    [
        ("2026-11-24T02:00", "2026-11-25T01:59", False),
        ("2026-11-24T02:00", "2026-11-25T02:05", False),  # a busy daemon is given its time
        ("2026-11-24T02:00", "2026-11-25T02:06", True),
        ("2026-11-25T02:00", "2026-11-25T12:00", False),
    ],
)
def test_a_schedule_that_was_due_and_not_looked_at_is_told(newest: str, now: str, overdue: bool) -> None:
    moment = datetime.fromisoformat(f"{now}+00:00")
    facts = ticked(NIGHTLY, datetime.fromisoformat(f"{newest}+00:00"))
    facts = replace(facts, now=moment, daemons=(Daemon("SCHEDULER", moment),))
    assert bool(said(facts)) is overdue


def test_a_schedule_is_due_by_the_clock_of_its_time_zone() -> None:
    facts = ticked(NIGHTLY, datetime(2026, 11, 25, 1, 0, tzinfo=UTC))  # 02:00 in Zurich
    assert judge_automation(facts, "Europe/Zurich") == ()
    assert said(facts)  # in UTC it was due at 02:00, an hour later


def test_a_schedule_without_a_tick_is_due_from_when_it_was_switched_on() -> None:
    fresh = replace(NIGHTLY, since=NOW - 2 * MINUTE)
    assert said(replace(WELL, instigators=(fresh,))) == []
    assert said(replace(WELL, instigators=(NIGHTLY,))) != []


@pytest.mark.parametrize(("ago", "overdue"), [(25 * MINUTE, False), (25 * MINUTE + SECOND, True)])
def test_a_guard_that_missed_several_looks_is_told(ago: timedelta, overdue: bool) -> None:
    # Due 5 minutes after its last look; then three looks and the grace of a busy daemon.
    assert TICK_GRACE + 3 * (GUARD.every or SECOND) == 20 * MINUTE
    assert bool(said(ticked(GUARD, NOW - ago))) is overdue


def test_what_was_switched_on_again_is_due_from_then_on() -> None:
    again = replace(NIGHTLY, since=NOW - 2 * MINUTE, last=Tick(NOW - 3 * DAY))
    assert said(replace(WELL, instigators=(again,))) == []


def test_clocks_that_differ_a_little_silence_nothing() -> None:
    assert said(ticked(GUARD, NOW + CLOCKS_DIFFER)) == []
    assert said(ticked(GUARD, NOW + CLOCKS_DIFFER + SECOND)) != []


def test_what_is_switched_off_is_not_missed() -> None:
    assert said(replace(WELL, instigators=(replace(GUARD, on=False), replace(NIGHTLY, on=False)))) == []


def test_a_look_that_failed_is_told_with_when_and_its_error() -> None:
    failed = said(ticked(GUARD, NOW - 2 * MINUTE, "KeyError: 'POSTGRES_PASSWORD'"))
    assert failed == ["the sensor rpo_guard failed 2 min ago: KeyError: 'POSTGRES_PASSWORD'"]
    # Of two clocks that differ a little it was just now, and not to come.
    assert "failed 0 s ago" in said(ticked(GUARD, NOW + MINUTE, "x"))[0]


@pytest.mark.parametrize("one", [GUARD, NIGHTLY])
def test_what_a_clock_that_ran_ahead_has_silenced_is_told_with_the_way_out(one: Instigator) -> None:
    (finding,) = judge_automation(ticked(one, NOW + 365 * DAY), "UTC")
    assert finding.severity is Severity.CRITICAL
    assert "is in the future" in finding.what
    assert "DELETE FROM job_ticks" in finding.advice.sql[0]


@pytest.mark.parametrize(("waited", "told"), [(DAY, False), (DAY + SECOND, True)])
def test_a_run_may_wait_until_the_next_of_its_job_would_be_due(waited: timedelta, told: bool) -> None:
    facts = replace(
        ticked(NIGHTLY, NOW.replace(hour=2, minute=0)), waiting=(Waiting("0123456789", "logical_backup", NOW - waited),)
    )
    assert pace_of(facts, "logical_backup", "UTC") == DAY
    assert ("run 01234567 of logical_backup has been queued" in " ".join(said(facts))) is told


def test_a_run_of_a_job_that_comes_often_may_not_wait_long_and_no_run_waits_for_ever() -> None:
    catch_up = replace(NIGHTLY, name="wal_catch_up_within_the_rpo", crons=("*/3 * * * *",))
    facts = replace(WELL, instigators=(catch_up,))
    assert pace_of(facts, "wal_catch_up", "UTC") == 10 * MINUTE
    assert pace_of(facts, "verify_backup", "UTC") == timedelta(hours=6)
    weekly = replace(NIGHTLY, name="weekly_recovery_drill", crons=("0 4 * * 0",))
    assert pace_of(replace(WELL, instigators=(weekly,)), "recovery_drill", "UTC") == DAY


@pytest.mark.parametrize(("number", "told"), [(3, False), (4, True)])
def test_a_queue_that_grows_is_told(number: int, told: bool) -> None:
    facts = replace(WELL, waiting=tuple(Waiting(f"{n}" * 8, "heartbeat", NOW) for n in range(number)))
    assert (f"{number} runs of heartbeat are queued" in said(facts)) is told


@pytest.mark.parametrize(("ago", "told"), [(10 * MINUTE, False), (11 * MINUTE, True)])
def test_a_run_that_was_to_be_repeated_and_was_not_is_told(ago: timedelta, told: bool) -> None:
    facts = replace(WELL, unrepeated=(Waiting("0123456789", "base_backup", NOW - ago),))
    assert ("was not retried" in " ".join(said(facts))) is told


def test_a_place_in_a_pool_that_outlived_its_run_is_told_with_the_way_out() -> None:
    (finding,) = judge_automation(replace(WELL, held=(Held("production_backup", "0123456789"),)), "UTC")
    assert finding.severity is Severity.CRITICAL
    assert finding.advice.sql[0].startswith("UPDATE concurrency_slots")
