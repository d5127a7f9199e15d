"""Times that a server's clock showed twice are said to be ambiguous."""

from __future__ import annotations

from datetime import timedelta

from tmi_ops.recovery.point_in_time.overlap import another_reading
from tmi_ops.recovery.point_in_time.waldump import TransactionEnd
from tmi_ops_tests.recovery.point_in_time.pasts import minutes


def ends(*times: float) -> list[TransactionEnd]:
    """One transaction at LSN 100, 200 and so on, so many minutes after noon."""
    return [TransactionEnd(100 * number, minutes(time)) for number, time in enumerate(times, 1)]


def test_times_that_only_go_on_have_one_reading() -> None:
    assert list(another_reading(ends(10, 19, 21, 25, 30), 300, minutes(20))) == []


def test_commits_behind_the_target_that_bear_earlier_times_are_told_with_the_later_place() -> None:
    (said,) = another_reading(ends(10, 19, 21, 30, 15, 19.5, 22), 300, minutes(20))
    assert said.startswith("2026-11-24 12:20:00 UTC is ambiguous: the server's clock was put back, and 2 of")
    assert "the last one 2026-11-24 12:19:30 UTC" in said
    assert "--to-lsn 0/258" in said


def test_what_lies_before_the_place_that_was_reached_does_not_count() -> None:
    assert list(another_reading(ends(10, 25, 15, 19), 500, minutes(20))) == []


def test_commits_out_of_order_by_less_than_a_second_are_no_clock_put_back() -> None:
    close = [TransactionEnd(300, minutes(20) + timedelta(milliseconds=3)), TransactionEnd(400, minutes(20))]
    assert list(another_reading(close, 300, minutes(20))) == []
