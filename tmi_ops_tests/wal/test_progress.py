"""Up to which moment the archive is said to hold everything: never later than it did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.wal.progress import StreamProgress

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_the_archive_was_level_when_the_server_said_how_far_it_was_once_all_that_is_stored() -> None:
    progress = StreamProgress()
    progress.observe(1000, _at(1))
    progress.observe(2000, _at(2))
    assert progress.level_at is None
    progress.stored(1500)
    assert progress.level_at == _at(1)
    progress.stored(2000)
    assert (progress.level_at, progress.lag) == (_at(2), 0)


def test_a_server_that_waits_for_a_slow_receiver_is_not_believed_to_have_nothing_left() -> None:
    progress = StreamProgress()
    progress.observe(1000, _at(1))
    progress.stored(1000)
    progress.keepalive(1000, _at(10), asked_for=True)
    assert progress.level_at == _at(1)
    progress.observe(9000, _at(11))
    assert progress.level_at == _at(1)


def test_a_server_that_had_nothing_to_send_between_two_questions_was_level_at_the_first_answer() -> None:
    progress = StreamProgress()
    progress.observe(1000, _at(1))
    progress.stored(1000)
    for second in (10, 12, 14):
        progress.keepalive(1000, _at(second), asked_for=True)
    assert progress.level_at == _at(12)
    progress.keepalive(1000, _at(20), asked_for=False)
    assert progress.level_at == _at(12)


def test_what_a_timeline_that_was_left_had_says_nothing_about_now() -> None:
    progress = StreamProgress()
    progress.leave_unobserved(1000)
    progress.stored(1000)
    assert progress.level_at is None
