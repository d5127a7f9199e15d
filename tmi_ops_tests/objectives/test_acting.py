"""What a judgement leads to, look after look, without a server and without Dagster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.checks.finding import Severity
from tmi_ops.objectives.acting import Attempt, Decision, Memory, Pace, Topic, decide, decide_unread
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.standing import Standing

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PACE = Pace.of(15 * MINUTE)
CATCH_UP, INCREMENTAL = Cure(Action.CATCH_UP_WAL), Cure(Action.BACK_UP_INCREMENTAL)
BY_A_PERSON = Cure(Action.START_RECEIVER)


@dataclass(frozen=True)
class Judgement:
    standing: Standing
    cures: tuple[Cure, ...] = ()
    reason: str = "The reason."


def looks(judgements: Sequence[Judgement], every: timedelta, running: Collection[Action] = ()) -> list[Decision]:
    """One look after the other, each with what the one before remembered, as Dagster keeps it."""
    cursor, decisions = None, []
    for number, judgement in enumerate(judgements):
        decision = decide(Topic.RPO, judgement, Memory.of(cursor), NOW + number * every, PACE, running)
        cursor = decision.memory.model_dump_json()
        decisions.append(decision)
    return decisions


def ordered(decisions: Sequence[Decision]) -> list[Action | None]:
    return [decision.order.cure.action if decision.order else None for decision in decisions]


def test_at_risk_the_cheapest_cure_that_needs_no_person_is_begun_once_and_nobody_is_woken() -> None:
    risk = Judgement(Standing.AT_RISK, (BY_A_PERSON, CATCH_UP, INCREMENTAL))
    decisions = looks([risk] * 5, MINUTE)
    assert ordered(decisions) == [Action.CATCH_UP_WAL, None, None, None, None]
    assert [decision.alert for decision in decisions] == [None] * 5


def test_a_cure_that_did_not_help_in_its_time_is_followed_by_the_next_and_each_waits_longer() -> None:
    risk = Judgement(Standing.AT_RISK, (CATCH_UP, INCREMENTAL))
    decisions = looks([risk] * 60, MINUTE)
    begun = [(minute, order) for minute, order in enumerate(ordered(decisions)) if order]
    assert begun == [
        (0, Action.CATCH_UP_WAL),
        (5, Action.BACK_UP_INCREMENTAL),
        (15, Action.CATCH_UP_WAL),
        (35, Action.BACK_UP_INCREMENTAL),
    ]
    keys = [decision.order.key for decision in decisions if decision.order]
    assert len(set(keys)) == len(keys)
    told = [minute for minute, decision in enumerate(decisions) if decision.alert]
    assert told[0] == 15  # both were tried, both had their time
    assert decisions[15].alert is not None
    assert decisions[15].alert.severity is Severity.WARNING


def test_a_cure_that_is_at_work_is_not_begun_again_however_long_it_takes() -> None:
    breach = Judgement(Standing.BREACHED, (CATCH_UP,))
    decisions = looks([breach] * 200, MINUTE, running={Action.CATCH_UP_WAL})
    assert ordered(decisions) == [None] * 200
    assert decisions[-1].alert is not None
    assert decisions[-1].alert.done == "Running: catch up WAL."


def test_while_wal_is_caught_up_with_no_base_backup_is_begun_though_a_receiver_seems_to_be_too_slow() -> None:
    stopped = Judgement(Standing.BREACHED, (CATCH_UP, BY_A_PERSON))
    slow = Judgement(Standing.BREACHED, (BY_A_PERSON, INCREMENTAL))
    first = decide(Topic.RPO, stopped, Memory(), NOW, PACE)
    assert ordered([first]) == [Action.CATCH_UP_WAL]
    later = decide(Topic.RPO, slow, first.memory, NOW + 60 * MINUTE, PACE, {Action.CATCH_UP_WAL})
    by_schedule = decide(Topic.RPO, slow, Memory(), NOW, PACE, {Action.CATCH_UP_WAL})
    over = decide(Topic.RPO, slow, first.memory, NOW + 60 * MINUTE, PACE)
    assert ordered([later, by_schedule, over]) == [None, None, Action.BACK_UP_INCREMENTAL]


def test_a_breach_is_told_at_once_with_what_was_done_and_what_to_do() -> None:
    (decision,) = looks([Judgement(Standing.BREACHED, (CATCH_UP, BY_A_PERSON))], MINUTE)
    assert decision.alert is not None
    assert (decision.alert.key, decision.alert.severity, decision.alert.since) == ("rpo", Severity.CRITICAL, NOW)
    assert decision.alert.done == "Starting now: catch up WAL."
    assert "tmi-ops wal stream --catch-up" in decision.alert.to_do
    assert "tmi-ops wal stream" in decision.alert.to_do


def test_while_the_database_cannot_be_reached_no_backup_is_begun_that_could_only_fail() -> None:
    cures = (Cure(Action.REACH_DATABASE), Cure(Action.BACK_UP_LOGICAL))
    (decision,) = looks([Judgement(Standing.BREACHED, cures)], MINUTE)
    assert decision.order is None
    assert decision.alert is not None
    assert "tmi-ops doctor" in decision.alert.to_do


def test_a_risk_that_only_a_person_can_end_is_told_at_once() -> None:
    (decision,) = looks([Judgement(Standing.AT_RISK, (BY_A_PERSON,))], MINUTE)
    assert decision.order is None
    assert decision.alert is not None
    assert decision.alert.done == "Nothing; a person must act."


def test_when_all_is_well_again_what_helped_is_said_and_the_next_trouble_begins_anew() -> None:
    breach, well = Judgement(Standing.BREACHED, (CATCH_UP,)), Judgement(Standing.MET, reason="All is archived.")
    first, over, still, again = looks([breach, well, well, breach], MINUTE)
    assert over.resolution == "All is archived. After: catch up WAL."
    assert over.alert is None
    assert still.order is None
    assert first.order is not None
    assert again.order is not None
    assert first.order.key != again.order.key


def test_an_unknown_standing_has_its_cure_and_wakes_nobody() -> None:
    (decision,) = looks([Judgement(Standing.UNKNOWN, (Cure(Action.RUN_DRILL),))], MINUTE)
    assert ordered([decision]) == [Action.RUN_DRILL]
    assert decision.alert is None


def test_not_to_know_is_told_and_becomes_critical_once_it_lasts_longer_than_the_objective() -> None:
    memory = Memory()
    for minutes, severity in ((0, Severity.WARNING), (15, Severity.WARNING), (16, Severity.CRITICAL)):
        now = NOW + minutes * MINUTE
        decision = decide_unread(Topic.RPO, "The store is away.", "start it", memory, now, PACE)
        memory = decision.memory
        assert decision.alert is not None
        assert decision.alert.severity is severity
        assert decision.alert.since == NOW
    met = decide(Topic.RPO, Judgement(Standing.MET), memory, NOW + 20 * MINUTE, PACE)
    assert met.resolution is not None
    assert met.memory.unread_since is None


@pytest.mark.parametrize("cursor", [None, "", "not json", '{"attempts": {"unheard of": 1}}'])
def test_a_cursor_that_cannot_be_read_is_an_empty_memory(cursor: str | None) -> None:
    assert Memory.of(cursor) == Memory()


@pytest.mark.parametrize("objective", [timedelta(seconds=20), timedelta(minutes=15), timedelta(days=1)])
def test_a_cure_has_time_to_help_and_the_objective_has_room_for_more_than_one(objective: timedelta) -> None:
    cooldown = Pace.of(objective).cooldown
    assert cooldown == max(objective / 3, timedelta(seconds=30))


def test_what_cannot_help_holds_up_nothing_however_long_it_is_at_work() -> None:
    nothing = Judgement(Standing.BREACHED, (Cure(Action.BACK_UP_BASE),), "There is no backup that can be restored.")
    (decision,) = looks([nothing], MINUTE, running={Action.CATCH_UP_WAL})
    assert ordered([decision]) == [Action.BACK_UP_BASE]
    assert decision.alert is not None
    assert decision.alert.done == "Starting now: take a base backup."


def test_what_is_at_work_and_could_help_has_its_time_and_then_the_next_cure_has_its_turn() -> None:
    risk = Judgement(Standing.AT_RISK, (CATCH_UP, INCREMENTAL))
    decisions = looks([risk] * 8, MINUTE, running={Action.CATCH_UP_WAL})
    assert ordered(decisions) == [None] * 5 + [Action.BACK_UP_INCREMENTAL] + [None] * 2


def test_a_cure_of_another_kind_of_trouble_that_was_begun_before_does_not_hold_up_the_one_that_is_needed_now() -> None:
    behind, hole = Judgement(Standing.AT_RISK, (CATCH_UP,)), Judgement(Standing.AT_RISK, (INCREMENTAL,))
    assert ordered(looks([behind, hole], MINUTE)) == [Action.CATCH_UP_WAL, Action.BACK_UP_INCREMENTAL]


def test_a_clock_that_ran_ahead_and_came_back_delays_a_cure_by_no_more_than_its_own_time() -> None:
    risk = Judgement(Standing.AT_RISK, (CATCH_UP,))
    ahead = decide(Topic.RPO, risk, Memory(), NOW + timedelta(days=365), PACE)
    assert ordered([ahead]) == [Action.CATCH_UP_WAL]
    memory, begun = ahead.memory, []
    for minute in range(12):
        decision = decide(Topic.RPO, risk, memory, NOW + minute * MINUTE, PACE)
        memory = decision.memory
        begun += [minute] if decision.order else []
    assert begun == [5]
    assert memory.since == NOW


def test_blindness_that_began_in_the_future_is_blindness_since_now() -> None:
    ahead = decide_unread(Topic.RPO, "Away.", "", Memory(), NOW + timedelta(days=365), PACE)
    back = decide_unread(Topic.RPO, "Away.", "", ahead.memory, NOW, PACE)
    later = decide_unread(Topic.RPO, "Away.", "", back.memory, NOW + 16 * MINUTE, PACE)
    assert back.alert is not None
    assert (back.alert.since, back.alert.severity) == (NOW, Severity.WARNING)
    assert later.alert is not None
    assert later.alert.severity is Severity.CRITICAL


def test_an_open_alert_says_what_is_so_now_and_ends_with_the_trouble_it_told_of() -> None:
    nothing = Judgement(Standing.BREACHED, (Cure(Action.BACK_UP_BASE),), "There is nothing to restore from.")
    slow = Judgement(Standing.AT_RISK, (INCREMENTAL,), "It would take 40 min.")
    unmeasured = Judgement(Standing.UNKNOWN, (Cure(Action.RUN_DRILL),), "No drill has measured it.")
    told, changed, over = looks([nothing, slow, unmeasured], 10 * MINUTE)
    assert told.alert is not None
    assert changed.alert is None
    assert changed.amended is not None
    assert (changed.amended.severity, changed.amended.at_risk) == (Severity.WARNING, "It would take 40 min.")
    assert (over.alert, over.amended) == (None, None)
    assert over.resolution is not None
    assert over.resolution.startswith("No drill has measured it.")


@pytest.mark.parametrize(
    ("standing", "cures", "told"),
    [
        (Standing.AT_RISK, (), True),
        (Standing.UNKNOWN, (Cure(Action.SET_CLOCKS),), True),
        (Standing.UNKNOWN, (), False),
    ],
)
def test_where_nothing_can_be_begun_a_risk_is_told_and_so_is_whatever_a_person_can_mend(
    standing: Standing, cures: tuple[Cure, ...], told: bool
) -> None:
    (decision,) = looks([Judgement(standing, cures)], MINUTE)
    assert (decision.alert is not None) is told


def test_orders_are_numbered_within_their_trouble_so_that_each_is_begun_once() -> None:
    decisions = looks([Judgement(Standing.AT_RISK, (CATCH_UP,))] * 6, MINUTE)
    keys = [decision.order.key for decision in decisions if decision.order]
    assert keys == ["rpo-catch_up_wal-20261125T030000-1", "rpo-catch_up_wal-20261125T030000-2"]


def test_people_are_not_told_while_one_of_the_cures_still_has_time_to_help() -> None:
    now = NOW + timedelta(hours=1)
    memory = Memory(
        since=NOW,
        attempts={Action.BACK_UP_INCREMENTAL: Attempt(times=2, at=now - 7 * MINUTE)},
        at_work={Action.CATCH_UP_WAL: now - 20 * MINUTE},
    )
    risk = Judgement(Standing.AT_RISK, (CATCH_UP, INCREMENTAL))
    waiting = decide(Topic.RPO, risk, memory, now, PACE, {Action.CATCH_UP_WAL})
    over = decide(Topic.RPO, risk, memory, now + 3 * MINUTE, PACE, {Action.CATCH_UP_WAL, Action.BACK_UP_INCREMENTAL})
    assert waiting.alert is None
    assert over.order is None


def test_what_could_not_be_read_says_what_to_do_and_a_moment_ahead_counts_as_now() -> None:
    for step, to_do in (("start it", "start it"), ("", "tmi-ops doctor")):
        alert = decide_unread(Topic.RPO, "Away.", step, Memory(), NOW, PACE).alert
        assert alert is not None
        assert alert.to_do == to_do
    assert Memory(stuck_since=NOW + timedelta(days=1)).as_of(NOW).stuck_since == NOW
    assert Memory(stuck_since=NOW - MINUTE).as_of(NOW).stuck_since == NOW - MINUTE


WELL = Memory(standing=Standing.MET, looked_at=NOW)


@pytest.mark.parametrize(
    ("memory", "passed", "is_well"),
    [
        (WELL, MINUTE, True),
        (WELL, 5 * MINUTE, False),
        (WELL, -MINUTE, False),
        (Memory(), MINUTE, False),
        (Memory(standing=Standing.MET), MINUTE, False),
        (WELL.model_copy(update={"standing": Standing.AT_RISK}), MINUTE, False),
        (WELL.model_copy(update={"unread_since": NOW}), MINUTE, False),
        (WELL.model_copy(update={"stuck_since": NOW}), MINUTE, False),
    ],
)
def test_only_where_all_was_well_the_next_look_waits(memory: Memory, passed: timedelta, *, is_well: bool) -> None:
    assert memory.is_well_since(NOW + passed, 5 * MINUTE) is is_well
