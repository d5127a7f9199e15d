"""On which side of a moment files were stored that came in their order, found by asking a few."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.retention.indexed_wal import NotByIndexError, times_around

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def steady(count: int) -> list[datetime]:
    return [NOW + number * timedelta(minutes=10) for number in range(count)]


def bursts(count: int) -> list[datetime]:
    """Nearly everything at once, then nothing for months, then a trickle."""
    return [NOW + timedelta(seconds=number) + timedelta(days=90 * (number > count - 9)) for number in range(count)]


@pytest.mark.parametrize("times", [steady(1), steady(2), steady(1000), bursts(1000), [NOW] * 50])
@pytest.mark.parametrize("since", [-1.0, 0.0, 0.001, 0.4, 0.999, 1.0, 2.0])
def test_it_is_known_of_each_on_which_side_it_was_stored(times: Sequence[datetime], since: float) -> None:
    at = times[0] + since * (times[-1] - times[0] or timedelta(days=1))
    known = times_around(len(times), times.__getitem__, at)
    first = bisect_left(times, at)
    assert {number >= first for number in known} == {known[number] >= at for number in known}
    assert {0, len(times) - 1} <= known.keys()
    if 0 < first < len(times):
        assert {first - 1, first} <= known.keys()


def test_a_million_segments_are_placed_by_a_few_looks() -> None:
    chance = random.Random(1)  # noqa: S311
    looks = []
    for times in (steady(1_000_000), bursts(1_000_000)):
        for _ in range(20):
            at = times[chance.randrange(len(times))]
            looks.append(len(times_around(len(times), times.__getitem__, at)))
    assert max(looks) <= 40
    assert sorted(looks)[len(looks) // 4] <= 8


def test_what_was_not_stored_in_its_order_is_not_guessed() -> None:
    times = steady(1000)
    with pytest.raises(NotByIndexError):
        times_around(len(times), times[::-1].__getitem__, NOW + timedelta(days=1))
    shuffled = [times[0], *random.Random(2).sample(times[1:-1], len(times) - 2), times[-1]]  # noqa: S311
    with pytest.raises(NotByIndexError):
        for number in range(0, 1000, 50):
            times_around(len(times), shuffled.__getitem__, times[number])
    late = [*times[:500], times[500] - timedelta(minutes=30), *times[501:]]  # two were on their way at once
    assert times_around(len(times), late.__getitem__, times[400])
