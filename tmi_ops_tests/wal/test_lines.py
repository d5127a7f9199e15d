"""Which lines live, decided from when they committed; and what was recorded of who was followed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.postgres.wal_files import TimelineSwitch
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.lineage import Lineage, Stretch, lineage
from tmi_ops.wal.lines import Commits, Tip, describe_lines, followed_line, is_abandoned, lines_of, living, parting
from tmi_ops.wal.records import ArchiveRecords, Followed
from tmi_ops_tests.wal.test_coverage import Stored, archive_with, at, whole

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
LEFT = at(1.5)
HISTORY = {2: (TimelineSwitch(1, LEFT, ""),)}


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def between(first: float, newest: float) -> Commits:
    return Commits(minute(first), minute(newest))


def two_tips(one: Commits, two: Commits, followed: tuple[Followed, ...] = ()) -> list[int]:
    """The timelines that live, of timeline 1 and of 2 which came of it."""
    tips = [Tip(lineage(1, ()), at(4), one.newest), Tip(lineage(2, HISTORY[2]), at(3), two.newest)]
    found = living(tips, {(1, 2): one, (2, 1): two}, followed)
    return [tip.timeline for tip in found]


def test_a_timeline_left_by_a_promotion_is_no_tip() -> None:
    archive = archive_with(*whole(1, 0), Stored(1, 1, 2), *whole(2, 1, 2))
    assert [line.timelines for line in lines_of(archive, HISTORY)] == [(1, 2)]


def test_a_timeline_with_wal_beyond_the_place_where_it_was_left_is_a_tip_beside_its_child() -> None:
    archive = archive_with(*whole(1, 0, 1), *whole(2, 1, 2))
    assert [line.timelines for line in lines_of(archive, HISTORY)] == [(1,), (1, 2)]


def test_a_timeline_of_unknown_history_begins_with_its_first_base_or_is_left_out() -> None:
    archive = archive_with(*whole(1, 0), *whole(3, 4, 5))
    assert [line.timelines for line in lines_of(archive, {})] == [(1,)]
    assert lines_of(archive, {}, {3: at(4.5)})[-1] == Lineage((Stretch(3, at(4.5), None),))


def test_lines_part_where_one_left_the_timeline_that_the_other_went_on_with() -> None:
    one, two = lineage(1, ()), lineage(2, HISTORY[2])
    assert parting(one, two) == parting(two, one) == LEFT
    sibling = lineage(3, (TimelineSwitch(1, at(1), ""),))
    assert parting(two, sibling) == at(1)
    twin = lineage(3, (TimelineSwitch(1, LEFT, ""),))
    assert parting(two, twin) == LEFT
    deeper = lineage(4, (*HISTORY[2], TimelineSwitch(2, at(2), "")))
    assert parting(two, deeper) == at(2)


def test_a_failed_server_whose_last_commits_came_before_its_successors_first_is_abandoned() -> None:
    assert two_tips(between(0, 1), between(2, 3)) == [2]


def test_a_timeline_that_went_on_committing_after_its_copy_did_lives_beside_it() -> None:
    assert two_tips(between(0, 5), between(2, 3)) == [1, 2]


def test_a_copy_that_committed_is_never_given_up_without_a_persons_word() -> None:
    assert two_tips(between(4, 5), between(2, 3)) == [1, 2]


def test_an_old_timeline_that_committed_nothing_since_is_abandoned() -> None:
    assert two_tips(Commits(), between(4, 5)) == [2]
    assert two_tips(Commits(), Commits()) == [2]


def test_of_a_timeline_that_has_committed_nothing_yet_what_was_followed_decides() -> None:
    """Promoted a moment ago, or a copy that was started once: its WAL does not tell."""
    assert two_tips(between(4, 5), Commits()) == [1, 2]
    assert two_tips(between(4, 5), Commits(), (Followed(timeline=1, since=minute(0)),)) == [1]
    assert two_tips(between(4, 5), Commits(), (Followed(timeline=2, since=minute(6)),)) == [2]
    assert two_tips(between(4, 7), Commits(), (Followed(timeline=2, since=minute(6)),)) == [1, 2]
    assert two_tips(between(4, 5), Commits(readable=False), (Followed(timeline=1, since=minute(0)),)) == [1, 2]


def test_where_commits_cannot_be_read_nothing_is_abandoned() -> None:
    assert two_tips(Commits(readable=False), between(4, 5)) == [1, 2]
    assert two_tips(between(0, 1), Commits(readable=False)) == [1, 2]


def test_a_persons_word_abandons_the_other_line_until_that_one_commits_again() -> None:
    word = (Followed(timeline=1, since=minute(10), by="person"),)
    assert two_tips(between(0, 5), between(2, 3), word) == [1]
    assert two_tips(between(0, 5), between(2, 11), word) == [1, 2]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4))
def test_some_line_always_lives(spans: list[tuple[int, int]]) -> None:
    tips, commits = [], {}
    for number, span in enumerate(spans, start=1):
        own = between(min(span), max(span))
        tips.append(Tip(lineage(number, ()), at(1), own.newest))
        commits |= {(number, other): own for other in range(1, len(spans) + 1)}
    assert living(tips, commits)


def test_a_line_is_not_abandoned_for_one_that_began_while_it_still_committed() -> None:
    assert not is_abandoned(between(0, 3), between(3, 4), mine_is_newer=False)
    assert is_abandoned(between(0, 2.9), between(3, 4), mine_is_newer=False)


def test_of_several_the_one_that_was_followed_last_is_taken() -> None:
    tips = [Tip(lineage(1, ()), at(4)), Tip(lineage(2, HISTORY[2]), at(3))]
    assert followed_line(tips, ()).timeline == 2
    assert followed_line(tips, [Followed(timeline=2, since=NOON), Followed(timeline=1, since=NOON)]).timeline == 1
    assert followed_line(tips, [Followed(timeline=9, since=NOON)]).timeline == 2


def test_two_lines_are_named_with_their_newest_commits() -> None:
    tips = [Tip(lineage(1, ()), at(4), minute(1)), Tip(lineage(2, HISTORY[2]), at(3))]
    assert (
        describe_lines(tips)
        == "timeline 1 (newest commit 2026-11-27 12:01:00 UTC) and timeline 2 (newest commit unknown)"
    )


def test_what_is_followed_is_recorded_once_and_a_change_of_server_or_timeline_anew() -> None:
    first = ArchiveRecords().with_followed(1, "a:5432", NOON)
    assert first.with_followed(1, "a:5432", minute(1)) == first
    again = first.with_followed(2, "b:5432", minute(1)).with_followed(1, "a:5432", minute(2))
    assert [(item.timeline, item.server) for item in again.followed] == [(1, "a:5432"), (2, "b:5432"), (1, "a:5432")]


def test_a_receiver_does_not_overrule_a_persons_word_unseen() -> None:
    """What it follows after that is recorded again, so that the two can be told apart."""
    named = ArchiveRecords().with_followed(1, "a", NOON).with_word(2, minute(1))
    assert named.current is not None
    assert named.current.by == "person"
    assert named.with_followed(1, "a", minute(2)).followed[-1].since == minute(2)
    assert named.with_word(1, minute(2)).with_followed(1, "a", minute(3)).word is not None


def test_a_break_is_recorded_once() -> None:
    found = Break(1, at(2), "minimal")
    records = ArchiveRecords().with_break(found)
    assert records.with_break(found) is records
    assert records.as_breaks() == (found,)
