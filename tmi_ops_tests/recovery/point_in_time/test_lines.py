"""Decisions where there is more than one timeline."""

from __future__ import annotations

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.point_in_time.facts import Fork, RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan, plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops_tests.recovery.point_in_time.pasts import a_base, an_archive, lsn, minutes, some_facts, switches

# Timeline 1 went on to 8; timeline 2 left it in the middle of segment 5, timeline 3 left timeline 2 in that of 7.
HISTORIES = {2: switches((1, 5.5)), 3: switches((1, 5.5), (2, 7.5))}
WAL = an_archive({1: range(3, 8), 2: [5, 6, 7, 8], 3: [7]}, {3: (8, 8.2)}, [2, 3])
FIRST = a_base("first", 2.5)
LATE_ON_ONE = a_base("late on 1", 6.5)
ON_TWO = a_base("on 2", 6.5, timeline=2)
FACTS = some_facts((FIRST, LATE_ON_ONE, ON_TWO), WAL, histories=HISTORIES)


def _names(plan: RecoveryPlan) -> list[tuple[int, int]]:
    return [(file.segment.timeline, file.segment.start // lsn(1)) for file in plan.wal.files]


def test_the_newest_timeline_is_followed_along_its_own_ancestors() -> None:
    plan = plan_recovery(FACTS, Target())
    assert (plan.timeline, plan.base) == (3, ON_TWO)
    assert _names(plan) == [(3, 7), (3, 8)]
    assert plan.wal.end == lsn(8.2)
    assert plan.histories == (2, 3)


def test_a_segment_in_which_a_timeline_was_left_is_taken_from_the_one_that_came_of_it() -> None:
    plan = plan_recovery(FACTS, Target(), base="first")
    assert _names(plan) == [(1, 3), (1, 4), (2, 5), (2, 6), (3, 7), (3, 8)]
    assert all(file.cut is None for file in plan.wal.files)


def test_a_base_beyond_the_place_where_the_line_left_its_timeline_is_of_another_history() -> None:
    facts = some_facts((FIRST, LATE_ON_ONE), WAL, histories=HISTORIES)
    assert plan_recovery(facts, Target()).base == FIRST
    assert plan_recovery(facts, Target(), timeline=1).base == LATE_ON_ONE
    with pytest.raises(RecoveryError, match=r"late on 1 ended at .* on timeline 1, which is not part of this line"):
        plan_recovery(facts, Target(), base="late on 1")


def test_an_earlier_timeline_is_followed_to_its_own_end_when_asked_for() -> None:
    plan = plan_recovery(FACTS, Target(), timeline=2)
    assert (plan.timeline, plan.base, plan.wal.end) == (2, ON_TWO, lsn(9))


def test_a_new_timeline_without_wal_yet_ends_where_it_began_and_what_its_parent_has_after_that_is_cut_off() -> None:
    facts = some_facts((FIRST,), an_archive({1: range(3, 8)}, histories=[2]), histories={2: switches((1, 5.5))})
    plan = plan_recovery(facts, Target())
    assert plan.timeline == 2
    assert plan.wal.end == lsn(5.5)
    assert plan.wal.files[-1].name == "000000010000000000000005"
    assert plan.wal.files[-1].cut == lsn(5.5)
    assert plan.wal.missing is None


def test_a_timeline_left_at_the_end_of_a_segment_needs_none_of_it_again() -> None:
    facts = some_facts((FIRST,), an_archive({1: [3, 4], 2: [5, 6]}, histories=[2]), histories={2: switches((1, 5))})
    assert _names(plan_recovery(facts, Target())) == [(1, 3), (1, 4), (2, 5), (2, 6)]


def test_an_open_segment_of_a_left_timeline_counts_as_far_as_the_line_needs_it() -> None:
    archive = an_archive({1: [3, 4], 2: [6]}, {1: (5, 5.9)}, [2])
    facts = some_facts((FIRST,), archive, histories={2: switches((1, 5.5))})
    with pytest.raises(RecoveryError, match="000000020000000000000005 is missing"):
        plan_recovery(facts, Target())


def test_wal_missing_between_two_timelines_is_named() -> None:
    facts = some_facts((FIRST,), an_archive({1: [3], 2: [5, 6]}, histories=[2]), histories={2: switches((1, 5.5))})
    with pytest.raises(RecoveryError, match="000000010000000000000004 is missing"):
        plan_recovery(facts, Target())


def test_an_lsn_that_other_timelines_have_too_is_reached_on_the_newest_and_the_others_are_mentioned() -> None:
    notes = plan_recovery(FACTS, Target(lsn=lsn(7.9))).notes
    assert any("Timeline 1 continued past this LSN" in note and "--timeline 1" in note for note in notes)
    assert any("Timeline 2 continued past this LSN" in note for note in notes)
    assert plan_recovery(FACTS, Target(lsn=lsn(5.2))).notes == ()


def test_a_timeline_that_left_no_trace_is_refused() -> None:
    with pytest.raises(RecoveryError, match=r"no timeline 4\. It has timeline 1, 2, 3"):
        plan_recovery(FACTS, Target(), timeline=4)


def test_a_timeline_whose_history_is_lost_is_refused_with_the_one_that_can_be_followed() -> None:
    facts = some_facts((FIRST, ON_TWO), WAL, histories={2: HISTORIES[2]}, histories_lost={3: "It is damaged."})
    with pytest.raises(RecoveryError, match="origin of timeline 3 is unknown") as caught:
        plan_recovery(facts, Target())
    assert "It is damaged." in caught.value.message
    assert "--timeline 2" in caught.value.hint
    assert plan_recovery(facts, Target(), timeline=2).timeline == 2


def _with_fork(after: float | None, abandoned: float | None) -> RecoveryFacts:
    fork = Fork(
        timeline=1,
        lsn=lsn(5.5),
        last_before=minutes(5.4),
        first_after=None if after is None else minutes(after),
        first_abandoned=None if abandoned is None else minutes(abandoned),
    )
    facts = some_facts((FIRST,), WAL, histories=HISTORIES)
    return some_facts((FIRST,), WAL, histories=facts.histories, clock=WalClock(minutes(60), (fork,)))


def test_a_time_at_which_the_line_stood_still_while_the_abandoned_history_went_on_is_refused_as_ambiguous() -> None:
    with pytest.raises(RecoveryError, match="lies between two timelines: timeline 1 was left") as caught:
        plan_recovery(_with_fork(after=30, abandoned=6), Target(time=minutes(7)))
    assert "12:05:24" in caught.value.message
    assert "12:30:00" in caught.value.message
    assert "--timeline 1" in caught.value.hint


@pytest.mark.parametrize(
    ("after", "abandoned", "time"),
    [
        (30, 6, 5.3),  # before the line left timeline 1
        (30, 6, 5.9),  # nothing was abandoned yet
        (30, 6, 30),  # timeline 2 went on
        (30, None, 7),  # a failover: timeline 1 has no commit that the line lacks
    ],
)
def test_a_time_whose_data_the_line_has_is_reached(after: float, abandoned: float | None, time: float) -> None:
    assert plan_recovery(_with_fork(after, abandoned), Target(time=minutes(time))).timeline == 3
