"""Decides from facts alone what an archive leads to, and what is a gap."""

from __future__ import annotations

import pytest

from tmi_ops.recovery.continuity.gaps import check_continuity
from tmi_ops_tests.recovery.point_in_time.pasts import a_base, an_archive, lsn, some_facts, switches

FIRST = a_base("first", 2.5)


def test_wal_without_a_hole_from_every_base_to_the_newest_lsn_is_proven() -> None:
    second = a_base("second", 5.5)
    continuity = check_continuity(some_facts([FIRST, second], an_archive({1: range(1, 9)}, {1: (9, 9.25)})), {})
    assert continuity.whole
    assert continuity.newest_is_reachable
    assert [(base.base.backup_id, base.reaches, base.newest) for base in continuity.bases] == [
        ("second", lsn(9.25), lsn(9.25)),
        ("first", lsn(9.25), lsn(9.25)),
    ]


def test_every_hole_is_named_with_its_segments_and_not_the_first_alone() -> None:
    continuity = check_continuity(some_facts([FIRST], an_archive({1: [3, 4, 7, 8, 10]})), {})
    assert [(hole.first.start, hole.segments, hole.start, hole.end) for hole in continuity.holes] == [
        (lsn(5), 2, lsn(5), lsn(7)),
        (lsn(9), 1, lsn(9), lsn(10)),
    ]
    assert continuity.holes[0].names == "000000010000000000000005 to 000000010000000000000006"
    assert not continuity.whole
    assert not continuity.newest_is_reachable
    assert (continuity.bases[0].reaches, continuity.bases[0].newest) == (lsn(5), lsn(11))


def test_a_base_after_the_hole_still_reaches_the_newest_lsn_and_the_hole_is_still_named() -> None:
    later = a_base("later", 6.5)
    continuity = check_continuity(some_facts([FIRST, later], an_archive({1: [3, 4, 7, 8]})), {})
    assert not continuity.whole
    assert continuity.newest_is_reachable
    assert [base.whole for base in continuity.bases] == [True, False]
    assert len(continuity.holes) == 1


def test_what_lies_before_the_oldest_base_is_not_missed() -> None:
    assert check_continuity(some_facts([FIRST], an_archive({1: [3, 4]})), {}).whole


def test_the_first_segment_after_the_base_that_is_missing_is_a_hole() -> None:
    (hole,) = check_continuity(some_facts([FIRST], an_archive({1: [4, 5]})), {}).holes
    assert (hole.start, hole.end) == (lsn(3), lsn(4))


def test_a_base_of_a_standby_needs_the_segment_in_which_it_ended() -> None:
    base = a_base("standby", 2.5, from_standby=True)
    (hole,) = check_continuity(some_facts([base], an_archive({1: [3]})), {}).holes
    assert hole.first.start == lsn(2)


def test_an_open_segment_in_the_middle_is_a_hole_from_where_it_ends() -> None:
    (hole,) = check_continuity(some_facts([FIRST], an_archive({1: [3, 5]}, {1: (4, 4.25)})), {}).holes
    assert (hole.start, hole.end, hole.segments) == (lsn(4.25), lsn(5), 1)


def test_damaged_wal_counts_as_missing() -> None:
    continuity = check_continuity(
        some_facts([FIRST], an_archive({1: range(3, 7)})), {"000000010000000000000004": "it is not what it was."}
    )
    assert [hole.start for hole in continuity.holes] == [lsn(4)]
    assert not continuity.whole
    assert not continuity.newest_is_reachable


def test_damage_of_the_last_segment_is_not_whole_either() -> None:
    continuity = check_continuity(some_facts([FIRST], an_archive({1: [3, 4]})), {"000000010000000000000004": "damaged"})
    assert continuity.holes == ()
    assert not continuity.whole


@pytest.mark.parametrize("copied", [True, False])
def test_a_timeline_is_followed_through_the_point_where_it_was_left(copied: bool) -> None:
    """The old timeline's last segment may be missing when the new one begins with a copy of it."""
    old = [3, 4, *([] if copied else [5])]
    archive = an_archive({1: old, 2: [5, 6] if copied else [6, 7]}, histories=[2])
    continuity = check_continuity(some_facts([FIRST], archive, histories={2: switches((1, 5.5))}), {})
    assert continuity.timeline == 2
    assert continuity.bases[0].timeline == 2
    assert continuity.whole is copied
    assert [(hole.timeline, hole.start) for hole in continuity.holes] == ([] if copied else [(2, lsn(5.5))])


def test_wal_that_the_line_left_behind_is_neither_needed_nor_believed() -> None:
    archive = an_archive({1: [3, 4, 5, 9], 2: [5, 6]}, histories=[2])
    continuity = check_continuity(some_facts([FIRST], archive, histories={2: switches((1, 5.5))}), {})
    assert continuity.whole
    assert continuity.bases[0].newest == lsn(7)


def test_a_base_on_an_abandoned_history_is_proven_along_that_one() -> None:
    abandoned = a_base("abandoned", 7.5)
    archive = an_archive({1: [3, 4, 5, 6, 7, 9], 2: [5, 6]}, histories=[2])
    continuity = check_continuity(some_facts([FIRST, abandoned], archive, histories={2: switches((1, 5.5))}), {})
    assert [(base.base.backup_id, base.timeline, base.whole) for base in continuity.bases] == [
        ("abandoned", 1, False),
        ("first", 2, True),
    ]
    assert continuity.newest_is_reachable


def test_a_timeline_whose_history_was_never_archived_is_said_to_be_lost() -> None:
    continuity = check_continuity(some_facts([FIRST], an_archive({1: [3, 4], 2: [5]})), {})
    assert continuity.timeline is None
    assert "00000002.history" in " ".join(continuity.lost) or "timeline 2" in " ".join(continuity.lost)
    assert not continuity.whole
    assert not continuity.newest_is_reachable


def test_a_base_whose_parent_is_gone_is_broken() -> None:
    orphan = a_base("orphan", 5.5, upon=a_base("gone", 4.5))
    continuity = check_continuity(some_facts([FIRST, orphan], an_archive({1: range(3, 8)})), {})
    assert "gone" in (continuity.bases[0].broken or "")
    assert not continuity.whole
    assert continuity.newest_is_reachable


def test_a_base_without_any_wal_after_it_reaches_its_own_end() -> None:
    continuity = check_continuity(some_facts([FIRST], an_archive({})), {})
    assert continuity.whole
    assert (
        continuity.bases[0].reaches == continuity.bases[0].newest == lsn(3)
    )  # a base of a primary ends with a whole segment
