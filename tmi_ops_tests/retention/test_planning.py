"""Every `never` of retention, one claim each."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tmi_ops.retention.facts import Backup, HalfMade, WalFile
from tmi_ops.retention.plan import RetentionPlan
from tmi_ops.retention.planning import RetentionRefusedError, plan_retention, superseded_pieces
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.guarding import UNTIL_RELEASED, UnfinishedUpload
from tmi_ops_tests.retention.catalogues import NOW, SEGMENT, base, days_ago, facts, logical, name_of, wal_file

LEAN = RetentionPolicy(last=1, daily=0, weekly=0, monthly=0, yearly=0, window=timedelta(days=1))
WEEK = LEAN.model_copy(update={"window": timedelta(days=7)})


def kept(plan: RetentionPlan) -> set[str]:
    return {item.backup.backup_id for item in plan.kept}


def reasons(plan: RetentionPlan, backup: Backup) -> str:
    return "; ".join(next(item.reasons for item in plan.kept if item.backup == backup))


def test_the_newest_proven_backup_stays_however_old_it_is_while_newer_ones_failed() -> None:
    verified, *failed = logical(300), logical(30, "failed", 1), logical(20, "failed", 2)
    plan = plan_retention(facts(verified, *failed, logical(0.5, "not proven", 3)), LEAN, NOW)
    assert "the newest verified" in reasons(plan, verified)
    assert [item.backup.verification for item in plan.removed] == ["failed", "failed"]


def test_the_last_ones_are_counted_among_those_whose_proof_did_not_fail() -> None:
    sound, *failed = logical(40), logical(30, "failed", 1), logical(20, "failed", 2)
    newest = logical(0.5, number=3)
    plan = plan_retention(facts(sound, *failed, newest), LEAN.model_copy(update={"last": 2}), NOW)
    assert kept(plan) == {sound.backup_id, newest.backup_id}
    assert "one of the last 2" in reasons(plan, sound)


def test_in_a_bucket_that_was_copied_yesterday_each_backup_is_as_old_as_it_was() -> None:
    """Every LastModified is of yesterday. What the policy counts by day, week and month stays what it was."""
    policy = RetentionPolicy(last=1, daily=5, weekly=3, monthly=3, yearly=0, window=timedelta(days=2))
    nightly = [logical(days + 0.4, number=days) for days in range(100)]
    copied = [replace(backup, stored_at=days_ago(1)) for backup in nightly]
    wanted = kept(plan_retention(facts(*nightly), policy, NOW))
    # While the copy is younger than the window nothing goes for its age; then the same stays as in the original.
    assert plan_retention(facts(*copied), policy, NOW).removes_nothing
    later = [replace(backup, stored_at=days_ago(3)) for backup in nightly]
    assert kept(plan_retention(facts(*later), policy, NOW)) == wanted


def test_where_the_clocks_of_backups_and_store_disagree_the_newest_of_either_stays() -> None:
    newest_by_manifest = replace(logical(2), stored_at=days_ago(1.9))
    newest_by_store = replace(logical(50, number=1), stored_at=days_ago(1.5))
    plan = plan_retention(facts(newest_by_manifest, newest_by_store, logical(60, number=2)), LEAN, NOW)
    assert kept(plan) == {newest_by_manifest.backup_id, newest_by_store.backup_id}


def test_where_nothing_is_proven_nothing_goes_not_even_what_is_half_made() -> None:
    half = HalfMade(name_of("logical", days_ago(9), 9), 1, 1, days_ago(9))
    known = facts(
        *(logical(days, "not proven") for days in (100, 50, 0.5)), wal=(wal_file(100, 90), wal_file(200, 0.1))
    )
    assert plan_retention(replace(known, half_made=(half,)), LEAN, NOW).removes_nothing


def test_a_proven_database_does_not_let_an_unproven_one_go() -> None:
    other = logical(100, "not proven", subject="other")
    plan = plan_retention(facts(logical(0.5), other), LEAN, NOW)
    assert reasons(plan, other) == "no backup of the database other is verified yet"


def test_a_hold_keeps_a_backup_and_the_whole_chain_it_builds_upon() -> None:
    full = base(100, 1000)
    middle = base(99, 2000, chain=(full,))
    held = replace(base(98, 3000, chain=(full, middle)), hold=logical(98, hold="audit 2026").hold)
    plan = plan_retention(facts(full, middle, held, base(9, 8000), base(0.5, 9000)), LEAN, NOW)
    assert not plan.removed
    assert reasons(plan, held) == "held: audit 2026"
    assert f"{held.backup_id} depends on it" in reasons(plan, full)


@pytest.mark.parametrize(("until", "stays"), [(days_ago(-5), True), (UNTIL_RELEASED, True), (days_ago(1), False)])
def test_object_lock_keeps_a_backup_until_it_ends(until: datetime, stays: bool) -> None:
    locked = replace(logical(50), locked_until=until)
    plan = plan_retention(facts(locked, logical(5), logical(0.5)), LEAN, NOW)
    assert (locked.backup_id in kept(plan)) is stays


def test_the_counts_keep_the_best_of_as_many_days_weeks_and_months() -> None:
    nightly = [logical(days + 0.4, number=days) for days in range(100)]
    policy = RetentionPolicy(last=1, daily=5, weekly=3, monthly=3, yearly=0, window=timedelta(days=2))
    ages = sorted((NOW - item.backup.taken_at).days for item in plan_retention(facts(*nightly), policy, NOW).kept)
    # Monday 15 June: five days, the Sundays before, the last days of May and April.
    assert ages == [0, 1, 2, 3, 4, 8, 15, 46]


def test_in_a_day_with_a_proven_backup_that_one_is_kept_before_a_newer_unproven_one() -> None:
    verified, newer = logical(20.2), logical(20.1, "not proven", 1)
    policy = LEAN.model_copy(update={"daily": 2})
    assert kept(plan_retention(facts(verified, newer, logical(0.5, number=2)), policy, NOW)) >= {verified.backup_id}
    assert newer.backup_id not in kept(plan_retention(facts(verified, newer, logical(0.5, number=2)), policy, NOW))


def test_the_window_keeps_the_base_it_begins_with_and_all_wal_from_there_but_no_wal_before() -> None:
    first, anchor, newest = base(30, 1000), base(10, 5000), base(0.5, 9000)
    wal = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 10000, SEGMENT))
    policy = WEEK
    plan = plan_retention(facts(first, anchor, newest, wal=wal), policy, NOW)
    assert "the recovery window begins at it" in reasons(plan, anchor)
    assert [item.backup for item in plan.removed] == [first]
    assert [file.start for file in plan.wal[0].removed] == list(range(1000, 5000, SEGMENT))


def test_where_no_proven_base_is_from_before_the_window_all_wal_and_bases_stay() -> None:
    failed, untried, verified = (
        base(20, 1000, verification="failed"),
        base(10, 5000, verification="not proven"),
        base(0.5, 9000),
    )
    wal = tuple(wal_file(lsn, 20 - lsn / 500) for lsn in range(1000, 9500, SEGMENT))
    plan = plan_retention(facts(failed, untried, verified, wal=wal), LEAN, NOW)
    assert plan.removes_nothing
    assert plan.wal[0].reasons == ("no verified base backup older than the window leads to timeline 1",)


def test_what_only_the_timeline_that_was_left_before_the_window_knows_stays() -> None:
    # At its beginning, 7 days ago, the data were timeline 1's; timeline 2 left it 5 days ago, at an earlier place.
    early, late = base(30, 1000), base(20, 3000)
    left = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 7000, SEGMENT))
    again = tuple(wal_file(lsn, 5 - lsn / 5000, timeline=2) for lsn in range(3500, 4000, SEGMENT))
    plan = plan_retention(
        facts(early, late, base(0.5, 3900, timeline=2), wal=(*left, *again), fork=3550),
        WEEK,
        NOW,
    )
    assert max(file.start for file in plan.wal[0].removed) < 3000


def test_the_newest_proven_backup_from_before_the_window_tells_what_the_data_were_when_it_began() -> None:
    before, earlier = logical(9), logical(12, number=1)
    plan = plan_retention(
        facts(earlier, before, logical(8, "not proven", 2), logical(0.5)),
        WEEK,
        NOW,
    )
    assert "the recovery window begins at it" in reasons(plan, before)
    assert earlier.backup_id not in kept(plan)


def test_an_unproven_base_is_no_ground_for_the_window() -> None:
    verified, untried, newest = base(20, 1000), base(10, 5000, verification="not proven"), base(0.5, 9000)
    wal = tuple(wal_file(lsn, 20 - lsn / 500) for lsn in range(1000, 9500, SEGMENT))
    plan = plan_retention(facts(verified, untried, newest, wal=wal), WEEK, NOW)
    assert not plan.wal[0].removed
    assert "the recovery window begins at it" in reasons(plan, verified)


def test_a_base_that_builds_upon_one_whose_proof_failed_is_no_ground_for_the_window_either() -> None:
    whole, failed = base(30, 1000), base(20, 3000, verification="failed")
    upon = base(10, 5000, chain=(failed,))
    wal = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 9500, SEGMENT))
    plan = plan_retention(facts(whole, failed, upon, base(0.5, 9000), wal=wal), WEEK, NOW)
    assert "the recovery window begins at it" in reasons(plan, whole)
    assert not plan.wal[0].removed


def test_after_a_recovery_into_the_past_new_wal_with_lower_lsns_stays_with_the_base_that_leads_to_it() -> None:
    early, late = base(30, 1000), base(10, 6000)
    old = tuple(wal_file(lsn, 30 - lsn / 400) for lsn in range(1000, 7000, SEGMENT))
    again = tuple(wal_file(lsn, 2 - lsn / 5000, timeline=2) for lsn in range(3000, 4000, SEGMENT))
    policy = WEEK
    plan = plan_retention(facts(early, late, base(0.5, 3900, timeline=2), wal=(*old, *again), fork=3050), policy, NOW)
    assert early.backup_id in kept(plan)
    assert not [file for file in plan.wal[0].removed if file.timeline == 2 or file.start < 3050]


def test_a_timeline_without_its_history_keeps_the_whole_cluster() -> None:
    wal = (wal_file(1000, 30), wal_file(5000, 0.5, timeline=2))
    plan = plan_retention(facts(base(30, 1000), base(20, 3000), base(0.5, 5000), wal=wal), LEAN, NOW)
    assert plan.removes_nothing
    assert plan.wal[0].reasons == (
        "the history of timeline 2 is not archived, or cannot be read without the private key",
    )


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (timedelta(days=400), "This machine's clock"),
        (timedelta(days=-400), "This machine's clock"),
        (timedelta(minutes=11), "This machine's clock"),
    ],
)
def test_a_clock_that_differs_from_the_stores_removes_nothing(shift: timedelta, words: str) -> None:
    with pytest.raises(RetentionRefusedError, match=words) as refusal:
        plan_retention(facts(logical(30), logical(0.5)), LEAN, NOW + shift)
    assert refusal.value.detail == "Nothing was deleted."


def test_a_store_that_got_nothing_for_as_long_as_its_window_is_left_alone() -> None:
    weekly = facts(logical(12), logical(5, number=1))
    assert plan_retention(weekly, WEEK, NOW).kept
    with pytest.raises(RetentionRefusedError, match="backups have stopped"):
        plan_retention(weekly, LEAN, NOW)


def test_both_clocks_far_ahead_of_the_newest_object_remove_nothing() -> None:
    known = replace(facts(logical(30), logical(0.5)), store_now=NOW + timedelta(days=30))
    with pytest.raises(RetentionRefusedError, match="no backup and no WAL since"):
        plan_retention(known, LEAN, NOW + timedelta(days=30))


def test_both_clocks_behind_the_store_remove_nothing() -> None:
    past = NOW - timedelta(days=20)
    with pytest.raises(RetentionRefusedError, match="in the future"):
        plan_retention(replace(facts(logical(30), logical(0.5)), store_now=past), LEAN, past)


def test_half_made_backups_go_after_a_day_unless_something_is_still_being_uploaded() -> None:
    old, running, young = (
        HalfMade(name_of("base", days_ago(d), n), 1, 1, days_ago(d)) for n, d in enumerate((2, 2, 0.5))
    )
    upload = UnfinishedUpload(f"base/{running.backup_id}/base.tar.zst", "u", days_ago(2))
    stale = UnfinishedUpload("wal/1/x", "v", days_ago(8))
    known = replace(facts(logical(0.5)), half_made=(old, running, young), uploads=(upload, stale))
    plan = plan_retention(known, LEAN, NOW)
    assert plan.half_made == (old,)
    assert plan.uploads == (stale,)


def test_a_backup_taken_at_the_very_moment_in_which_the_window_begins_tells_nothing_of_what_was_before() -> None:
    older = logical(5)
    plan = plan_retention(facts(older, logical(1, number=1), logical(0.5, number=2)), LEAN, NOW)
    assert "the recovery window begins at it" in reasons(plan, older)


def test_what_goes_says_why() -> None:
    failed, surplus = logical(30, "failed", 1), logical(20)
    plan = plan_retention(facts(failed, surplus, logical(10, number=2), logical(0.5, number=3)), LEAN, NOW)
    why = {item.backup: item.reasons for item in plan.removed}
    assert "its verification failed" in why[failed][0]
    assert "not kept by the policy" in why[surplus][0]


def test_the_wal_of_one_cluster_is_kept_by_bases_of_that_cluster_alone() -> None:
    anchor, newest = base(10, 5000), base(0.5, 9000)
    other = replace(base(0.4, 2000), system_identifier="8000000000000000002", subject="the cluster 8000000000000000002")
    wal = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 10000, SEGMENT))
    plan = plan_retention(facts(anchor, newest, other, wal=wal), WEEK, NOW)
    assert {file.start for file in plan.wal[0].removed} == set(range(1000, 5000, SEGMENT))
    assert "needed to make the 2 kept base backups consistent" in plan.wal[0].reasons[-1]


def test_a_base_kept_for_another_reason_keeps_its_own_wal_before_the_window_and_no_more() -> None:
    held = replace(base(20, 2000), hold=logical(20, hold="audit").hold)
    wal = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 10000, SEGMENT))
    plan = plan_retention(facts(held, base(10, 5000), base(0.5, 9000), wal=wal), WEEK, NOW)
    assert {file.start for file in plan.wal[0].removed} == {*range(1000, 5000, SEGMENT)} - {2000}


def test_of_two_lines_that_share_a_timeline_the_one_that_begins_earlier_decides_what_stays_of_it() -> None:
    early, late = base(20, 2000), base(10, 5000)
    old = tuple(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 7000, SEGMENT))
    # Timeline 2 left timeline 1 before the later base: its line begins with the earlier one.
    again = tuple(wal_file(lsn, 0.5, timeline=2) for lsn in range(3000, 3400, SEGMENT))
    living = (wal_file(7000, 0.5),)
    plan = plan_retention(facts(early, late, base(0.4, 7000), wal=(*old, *again, *living), fork=3050), WEEK, NOW)
    assert {early.backup_id, late.backup_id} <= kept(plan)
    assert min(file.start for file in old if file not in plan.wal[0].removed) == 2000


def test_wal_that_was_stored_at_the_very_moment_in_which_the_window_begins_stays() -> None:
    wal = (wal_file(900, 7), *(wal_file(lsn, 30 - lsn / 350) for lsn in range(1000, 10000, SEGMENT)))
    plan = plan_retention(facts(base(10, 5000), base(0.5, 9000), wal=wal), WEEK, NOW)
    assert [file.start for file in plan.wal[0].removed] == list(range(1000, 5000, SEGMENT))


def test_what_nothing_was_stored_in_for_exactly_a_day_is_not_forgotten_yet() -> None:
    halves = [HalfMade(name_of("base", days_ago(days), 7), 1, 1, days_ago(days)) for days in (1, 1.001)]
    plan = plan_retention(replace(facts(logical(0.5)), half_made=tuple(halves)), LEAN, NOW)
    assert plan.half_made == (halves[1],)
    upload = UnfinishedUpload(f"base/{halves[1].backup_id}/base.tar.zst", "u", days_ago(7))
    known = replace(facts(logical(0.5)), half_made=tuple(halves), uploads=(upload,))
    assert plan_retention(known, LEAN, NOW).half_made == (), "nor is what is uploaded for exactly a week"


def test_what_is_left_of_an_open_segment_goes_an_hour_after_it_is_there_whole() -> None:
    whole, fresh = wal_file(0, days=0.05), wal_file(SEGMENT, days=1 / 24)  # an hour, and no more

    def piece(of: WalFile, offset: int) -> WalFile:
        return replace(of, key=of.key.replace(".zst", f".partial.{offset:08X}.zst"))

    other = wal_file(2 * SEGMENT, days=3)
    left = [piece(whole, 0), piece(whole, 4096)]
    stays = [piece(fresh, 0), piece(other, 0)]
    note = replace(other, key=other.key.replace(".zst", ".00000028.backup.zst"))
    found = superseded_pieces([whole, fresh, note, *left, *stays], NOW)
    assert found == {file.key for file in left}
    known = facts(base(10, 0), wal=(whole, fresh, *left, *stays))
    plan = plan_retention(known, WEEK, NOW)
    assert {file.key for file in plan.wal[0].removed} == {file.key for file in left}
