from __future__ import annotations

from dataclasses import replace

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.recovery.point_in_time.facts import Edge, NamedPlace, RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.planning import plan_recovery
from tmi_ops.recovery.point_in_time.replay import replay_settings
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.wal.breaks import Break, BreakKind
from tmi_ops_tests.recovery.point_in_time.pasts import SYSTEM, a_base, an_archive, lsn, minutes, some_facts

FULL = a_base("full", 2.5)
SECOND = a_base("second", 4.5, upon=FULL)
THIRD = a_base("third", 6.5, upon=SECOND)
BASES = (SECOND, THIRD, FULL)
# Segments 3 to 8, the open one up to the middle of 9.
WAL = an_archive({1: range(3, 9)}, {1: (9, 9.5)})
FACTS = some_facts(BASES, WAL)


def _seen(end: int, timeline: int = 1) -> KnownWalEnd:
    """A receiver was level an hour after noon."""
    return KnownWalEnd("receiver", SYSTEM, end, minutes(60), timeline)


def _refused(facts: RecoveryFacts, target: Target, **choices: object) -> RecoveryError:
    with pytest.raises(RecoveryError) as caught:
        plan_recovery(facts, target, **choices)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value


def test_latest_begins_with_the_newest_base_and_its_chain_and_takes_all_wal_after_it() -> None:
    plan = plan_recovery(FACTS, Target())
    assert plan.chain == (FULL, SECOND, THIRD)
    assert [file.stored[-8:] for file in plan.wal.files] == ["00000007", "00000008", ".partial"]
    assert plan.wal.end == lsn(9.5)
    assert plan.to_the_end
    assert plan.notes == ()


@pytest.mark.parametrize(
    ("target", "chain"),
    [
        (Target(time=minutes(2.5)), (FULL,)),
        (Target(time=minutes(4.4)), (FULL,)),
        (Target(time=minutes(4.6)), (FULL, SECOND)),
        (Target(lsn=lsn(2.5)), (FULL,)),
        (Target(lsn=lsn(6.4)), (FULL, SECOND)),
        (Target(lsn=lsn(6.5)), (FULL, SECOND, THIRD)),
    ],
)
def test_the_newest_base_that_ended_before_the_target_is_begun_with(target: Target, chain: tuple[object, ...]) -> None:
    plan = plan_recovery(FACTS, target)
    assert plan.chain == chain
    assert not plan.to_the_end


def test_the_bases_that_would_do_as_well_are_named_newest_first() -> None:
    assert plan_recovery(FACTS, Target()).earlier == ("second", "full")


def test_a_restore_point_is_aimed_at_by_its_lsn() -> None:
    facts = some_facts(BASES, WAL, restore_point=NamedPlace(lsn(5.2), minutes(5.1)))
    plan = plan_recovery(facts, Target(name="before import"))
    assert (plan.chain, plan.stop_lsn, plan.named_at) == ((FULL, SECOND), lsn(5.2), minutes(5.1))


def test_a_restore_point_that_is_nowhere_is_an_error() -> None:
    assert "has no restore point 'before import'" in _refused(FACTS, Target(name="before import")).message


@pytest.mark.parametrize("target", [Target(time=minutes(2.4)), Target(lsn=lsn(2.4))])
def test_a_target_before_the_first_base_is_refused_with_the_earliest_that_can_be_reached(target: Target) -> None:
    error = _refused(FACTS, target)
    assert "before the end of the first base backup" in error.message
    assert "2026-11-24 12:02:30 UTC" in error.hint
    assert FULL.stop_lsn in error.hint


def test_an_lsn_after_the_last_wal_is_refused_with_how_far_the_wal_goes() -> None:
    error = _refused(FACTS, Target(lsn=lsn(9.5) + 1))
    assert f"after the last archived WAL, which ends at {format_lsn(lsn(9.5))}" in error.message
    assert "--latest" in error.hint


def test_the_lsn_at_which_the_wal_ends_is_its_end() -> None:
    assert plan_recovery(FACTS, Target(lsn=lsn(9.5))).to_the_end


def test_a_time_after_the_last_commit_is_refused_with_the_time_of_that_commit() -> None:
    facts = some_facts(BASES, WAL, clock=WalClock(minutes(8.9)))
    error = _refused(facts, Target(time=minutes(9)))
    assert "its last commit is at 2026-11-24 12:08:54 UTC" in error.message
    assert format_lsn(lsn(9.5)) in error.message


def test_the_time_of_the_last_commit_is_the_end_of_the_wal_unless_the_target_excludes_it() -> None:
    facts = some_facts(BASES, WAL, clock=WalClock(minutes(8.9)))
    assert plan_recovery(facts, Target(time=minutes(8.9))).to_the_end
    assert not plan_recovery(facts, Target(time=minutes(8.9), inclusive=False)).to_the_end


def test_a_time_in_a_quiet_hour_is_the_end_of_the_wal_where_a_receiver_saw_the_archive_complete_later() -> None:
    quiet = some_facts(BASES, WAL, clock=WalClock(minutes(9.4)), receiver=_seen(lsn(9.5)))
    plan = plan_recovery(quiet, Target(time=minutes(59)))
    assert plan.to_the_end
    assert "Nothing was committed between 2026-11-24 12:09:24 UTC and the target" in plan.notes[-1]
    assert "lies after the last archived WAL" in _refused(quiet, Target(time=minutes(61))).message


@pytest.mark.parametrize(
    "seen",
    [_seen(lsn(9.5), timeline=2), _seen(lsn(9.6))],
)
def test_what_a_receiver_saw_of_another_timeline_or_of_wal_that_is_gone_proves_no_quiet(seen: KnownWalEnd) -> None:
    facts = some_facts(BASES, WAL, clock=WalClock(minutes(9.4)), receiver=seen)
    assert "lies after the last archived WAL" in _refused(facts, Target(time=minutes(59))).message


def test_where_no_commit_was_found_near_the_end_the_replay_decides() -> None:
    assert plan_recovery(some_facts(BASES, WAL, clock=WalClock(None)), Target(time=minutes(30))).chain[-1] == THIRD


HOLED = an_archive({1: [3, 4, 5, 6, 8]}, {1: (9, 9.5)})


@pytest.mark.parametrize("target", [Target(), Target(lsn=lsn(8.5))])
def test_a_missing_segment_in_the_middle_is_named_with_how_far_one_can_get(target: Target) -> None:
    error = _refused(some_facts(BASES, HOLED), target)
    assert "000000010000000000000007 is missing" in error.message
    assert f"up to {format_lsn(lsn(7))}" in error.message
    assert f"--to-lsn {format_lsn(lsn(7))}" in error.hint


def test_a_target_before_the_hole_is_reached() -> None:
    facts = some_facts((FULL, SECOND), an_archive({1: [5, 6, 8]}))
    assert plan_recovery(facts, Target(lsn=lsn(6.5))).chain[-1] == SECOND
    # For a time, only the replay can tell on which side of the hole it lies.
    plan = plan_recovery(facts, Target(time=minutes(6)))
    assert plan.wal.missing is not None
    assert plan.wal.end == lsn(7)


def test_a_hole_before_the_base_is_none() -> None:
    assert plan_recovery(some_facts(BASES, an_archive({1: [3, 4, 7, 8]})), Target()).wal.end == lsn(9)


def test_a_chain_whose_parent_is_gone_gives_way_to_an_earlier_whole_one_and_the_plan_says_so() -> None:
    other_full = a_base("other", 3.5)
    plan = plan_recovery(some_facts((other_full, SECOND, THIRD), WAL), Target())
    assert plan.chain == (other_full,)
    assert "third cannot be used: it depends on full, which is missing" in plan.notes[0]


def test_where_every_chain_lacks_its_parent_the_error_names_what_is_gone() -> None:
    error = _refused(some_facts((SECOND, THIRD), WAL), Target())
    assert "third cannot be used: it depends on full" in error.message
    assert "second cannot be used: it depends on full" in error.message


def test_a_chain_with_a_gone_parent_that_is_asked_for_is_refused() -> None:
    refused = _refused(some_facts((SECOND, THIRD), WAL), Target(), base="third")
    assert "depends on full, which is missing" in refused.message


def test_a_base_that_failed_its_proof_and_all_that_build_upon_it_are_passed_over() -> None:
    plan = plan_recovery(some_facts(BASES, WAL, failed=frozenset({"second"})), Target())
    assert plan.chain == (FULL,)
    assert "third is not used: second failed verification" in plan.notes[0]


def test_a_base_that_is_asked_for_is_taken_even_if_a_proof_speaks_against_it() -> None:
    facts = some_facts(BASES, WAL, failed=frozenset({"second"}))
    assert plan_recovery(facts, Target(), base="second").chain == (FULL, SECOND)


def test_a_base_that_is_asked_for_must_have_ended_before_the_target() -> None:
    error = _refused(FACTS, Target(lsn=lsn(5)), base="third")
    assert "third ended at" in error.message


def test_a_base_that_is_not_there_is_refused() -> None:
    assert "no base backup fourth" in _refused(FACTS, Target(), base="fourth").message


def test_without_any_archived_wal_a_base_is_brought_back_as_it_ended() -> None:
    facts = some_facts((FULL,), an_archive({}))
    plan = plan_recovery(facts, Target())
    assert (plan.wal.files, plan.wal.end, plan.to_the_end) == ((), lsn(3), True)
    assert "No WAL after this backup is archived" in plan.notes[0]
    assert "after the last archived WAL" in _refused(facts, Target(time=minutes(3))).message


def test_a_base_of_a_standby_needs_the_segment_in_which_it_ended_from_the_archive() -> None:
    base = a_base("standby's", 2.5, from_standby=True)
    whole = plan_recovery(some_facts((base,), an_archive({1: [2, 3]})), Target())
    assert [file.segment.start for file in whole.wal.files] == [lsn(2), lsn(3)]
    refused = _refused(some_facts((base,), an_archive({1: [3]})), Target())
    assert "000000010000000000000002 is missing" in refused.message


def test_other_clusters_in_the_store_are_mentioned() -> None:
    plan = plan_recovery(some_facts(BASES, WAL, other_clusters=("42",)), Target())
    assert "also has base backups of 42" in plan.notes[0]


def test_a_time_that_the_clock_of_the_server_showed_twice_is_refused_with_both_places() -> None:
    """Between the first two bases the clock was put back from 12:30 to 12:04."""
    ahead = FULL.model_copy(update={"consistent_at": minutes(30)})
    facts = some_facts((ahead, SECOND, THIRD), WAL)
    error = _refused(facts, Target(time=minutes(20)))
    assert "2026-11-24 12:20:00 UTC is ambiguous: the server's clock was put back." in error.message
    assert "full ended at 2026-11-24 12:30:00 UTC" in error.message
    assert "third, later in the WAL, at 2026-11-24 12:06:30 UTC" in error.message
    assert "--to-lsn" in error.hint
    assert plan_recovery(facts, Target(lsn=lsn(5.2))).chain


def _broken_at(place: float, kind: BreakKind = "minimal", **edge: float | None) -> RecoveryFacts:
    """A break at LSN `place`, and the commits around it in minutes after noon."""
    archive = replace(WAL, breaks=(Break(1, lsn(place), kind),))
    times = {name: None if at is None else minutes(at) for name, at in edge.items()}
    return some_facts(BASES, archive, clock=WalClock(edges=(Edge(lsn(place), **times),)))


@pytest.mark.parametrize("time", [7.2, 7.5, 7.9])
def test_a_time_from_the_last_commit_before_wal_level_minimal_to_the_first_after_it_is_the_state_before(
    time: float,
) -> None:
    plan = plan_recovery(_broken_at(7.4, last_before=7.2, first_after=8.0), Target(time=minutes(time)))
    assert not plan.to_the_end
    told = replay_settings(plan, to_the_end=False)
    assert told["recovery_target_lsn"] == format_lsn(lsn(7.4))
    assert told["recovery_target_inclusive"] == "off"
    assert "recovery_target_time" not in told
    assert "The last commit before that is at 2026-11-24 12:07:12 UTC, the next one at" in plan.notes[-1]


def test_the_time_of_the_first_commit_after_wal_level_minimal_is_refused_unless_that_commit_is_excluded() -> None:
    facts = _broken_at(7.4, last_before=7.2, first_after=8.0)
    assert plan_recovery(facts, Target(time=minutes(8), inclusive=False)).stop_lsn == lsn(7.4)
    assert "wal_level = minimal" in _refused(facts, Target(time=minutes(8))).message


@pytest.mark.parametrize("kind", ["minimal", "unlinked"])
def test_a_time_behind_a_break_is_refused_before_the_replay_with_the_last_commit_before_it(kind: BreakKind) -> None:
    error = _refused(_broken_at(7.4, kind, last_before=7.2, first_after=None), Target(time=minutes(7.5)))
    assert "(last commit 2026-11-24 12:07:12 UTC)" in error.message


def test_a_time_behind_a_hole_is_refused_before_the_replay_and_that_of_the_last_commit_before_it_is_its_end() -> None:
    clock = WalClock(edges=(Edge(lsn(7), minutes(6.8)),))
    facts = some_facts(BASES, HOLED, clock=clock)
    assert "000000010000000000000007 is missing" in _refused(facts, Target(time=minutes(6.9))).message
    assert plan_recovery(facts, Target(time=minutes(6.8))).to_the_end
    assert not plan_recovery(facts, Target(time=minutes(6.8), inclusive=False)).to_the_end


def test_a_time_before_the_last_commit_before_a_break_is_aimed_at_as_ever() -> None:
    plan = plan_recovery(_broken_at(7.4, last_before=7.2, first_after=8.0), Target(time=minutes(7)))
    assert "recovery_target_time" in replay_settings(plan, to_the_end=plan.to_the_end)
