"""How far recovery by WAL comes, decided from the archive, the bases and who witnessed what."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from tmi_ops.objectives.reach import reach_by_wal
from tmi_ops.recovery.newest import newest_moment
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.planning import choose_line
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import Verification
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.lineage import lineage
from tmi_ops.wal.lines import Tip
from tmi_ops_tests.recovery.point_in_time.pasts import SYSTEM, a_base, an_archive, lsn, minutes, some_facts, switches

FULL, LATER = a_base("20261124T120100Z-base-aaaa", 1), a_base("20261124T120500Z-base-bbbb", 5)


def saw(at: float, place: float, *, who: str = "receiver", timeline: int | None = 1) -> KnownWalEnd:
    return KnownWalEnd(who, SYSTEM, lsn(place), minutes(at), timeline)  # type: ignore[arg-type]


def entries(*verified: str) -> list[CatalogueEntry]:
    verification = Verification.model_construct(outcome="proven")
    return [CatalogueEntry(base, verification if base.backup_id in verified else None) for base in (LATER, FULL)]


def whole(*numbers: int, breaks: tuple[Break, ...] = ()) -> RecoveryFacts:
    archive = replace(an_archive({1: numbers}), breaks=breaks)
    return some_facts([FULL, LATER], archive)


def newest(facts: RecoveryFacts, *witnesses: KnownWalEnd) -> tuple[datetime, str]:
    found = newest_moment(facts, choose_line(facts, None), FULL, witnesses)
    return found.at, found.shown_by


def test_without_any_witness_the_base_backup_alone_is_known() -> None:
    assert newest(whole(1, 2, 3)) == (FULL.consistent_at, "base backup")


def test_a_base_backup_of_a_standby_vouches_for_its_primarys_commits_not_by_its_clock() -> None:
    lagging = FULL.model_copy(update={"from_standby": True, "newest_commit_before": minutes(-9)})
    found = newest_moment(some_facts([lagging], an_archive({})), lineage(1, ()), lagging, ())
    assert (found.at, found.shown_by) == (minutes(-9), "base backup")


def test_a_witness_counts_where_the_archive_reaches_what_it_saw() -> None:
    assert newest(whole(1, 2, 3), saw(9, 4)) == (minutes(9), "receiver")
    assert newest(whole(1, 2, 3), saw(9, 4.1)) == (FULL.consistent_at, "base backup")


def test_of_several_witnesses_the_newest_is_believed() -> None:
    assert newest(whole(1, 2, 3), saw(9, 4), saw(11, 4, who="server"), saw(10, 3)) == (minutes(11), "server")


def test_a_witness_of_another_line_or_cluster_tells_nothing() -> None:
    assert newest(whole(1, 2, 3), saw(9, 4, timeline=2))[1] == "base backup"
    assert newest(whole(1, 2, 3), replace(saw(9, 4), system_identifier="1"))[1] == "base backup"


@pytest.mark.parametrize("facts", [whole(1, 3), whole(1, 2, 3, breaks=(Break(1, lsn(2.5), "minimal"),))])
def test_past_a_hole_and_past_a_break_neither_commits_nor_witnesses_count(facts: RecoveryFacts) -> None:
    facts = replace(facts, clock=WalClock(minutes(12)))
    assert newest(facts, saw(9, 4)) == (FULL.consistent_at, "base backup")
    assert newest(facts, saw(9, 2)) == (minutes(9), "receiver")


def test_the_newest_commit_counts_where_the_wal_is_whole() -> None:
    assert newest(replace(whole(1, 2, 3), clock=WalClock(minutes(12)))) == (minutes(12), "commit")


def test_the_proven_base_is_followed_beside_the_newest() -> None:
    found = reach_by_wal(whole(1, 2, 3, 4, 5, 6), entries(FULL.backup_id), [saw(9, 7)])
    assert found.verified is not None
    assert found.newest is not None
    assert (found.verified.backup_id, found.verified.at) == (FULL.backup_id, minutes(9))
    assert (found.newest.backup_id, found.newest.verified) == (LATER.backup_id, False)
    assert found.earliest_at == FULL.consistent_at


def test_a_break_leaves_the_proven_base_before_it_and_the_moments_after_it_to_the_later_base() -> None:
    facts = whole(1, 2, 3, 4, 5, 6, breaks=(Break(1, lsn(3.5), "minimal"),))
    found = reach_by_wal(facts, entries(FULL.backup_id), [saw(9, 7)])
    assert found.verified is not None
    assert found.newest is not None
    assert found.verified.at == FULL.consistent_at
    assert found.verified.broken is not None
    assert "minimal" in found.verified.broken
    assert (found.newest.at, found.newest.broken) == (minutes(9), None)
    assert found.earliest_at == LATER.consistent_at


def test_a_hole_moves_the_earliest_moment_behind_it_and_is_named() -> None:
    found = reach_by_wal(whole(1, 2, 4, 5, 6), entries(FULL.backup_id), [])
    assert found.verified is not None
    assert found.verified.missing == "000000010000000000000003"
    assert found.earliest_at == LATER.consistent_at


def test_two_lines_that_live_are_a_problem_and_the_followed_one_is_judged() -> None:
    archive = an_archive({1: (1, 2, 3, 4, 5, 6), 2: (2,)}, histories=(2,))
    history = switches((1, 2.5))
    tips = (Tip(lineage(1, ()), lsn(7), minutes(9)), Tip(lineage(2, history), lsn(3), minutes(8)))
    found = reach_by_wal(some_facts([FULL, LATER], archive, histories={2: history}, tips=tips), entries(), [])
    assert found.timeline == 2
    assert found.ambiguous is not None
    assert "2 lines of the cluster live: timeline 1 (newest commit" in found.ambiguous
