"""Who looks within a budget is told that nothing is known when it is over, and never waits longer."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.objectives.sharing import SharedReading

NO_TIME, PLENTY = 0.0, 30.0


def test_what_is_not_read_in_time_is_unknown_and_the_next_look_takes_what_it_brings() -> None:
    shared, may_end, readings = SharedReading[int](), threading.Event(), count(1)

    def read() -> int:
        may_end.wait(PLENTY)
        return next(readings)

    with pytest.raises(StoreError) as caught:
        shared.recent("one", read, shared_for_s=PLENTY, budget_s=NO_TIME)
    assert (caught.value.code, caught.value.transient) == (Code.READING_SLOW, True)
    may_end.set()
    assert shared.recent("one", read, shared_for_s=PLENTY, budget_s=PLENTY) == 1


def test_a_reading_is_shared_while_it_is_young_and_of_the_same() -> None:
    shared, readings = SharedReading[int](), count(1)

    def read() -> int:
        return next(readings)

    assert [shared.recent("one", read, shared_for_s=PLENTY, budget_s=PLENTY) for _ in range(2)] == [1, 1]
    assert shared.recent("another", read, shared_for_s=PLENTY, budget_s=PLENTY) == 2
    assert shared.recent("another", read, shared_for_s=0, budget_s=PLENTY) == 3


def test_a_failure_is_told_and_not_kept() -> None:
    shared = SharedReading[int]()

    def fail() -> int:
        raise StoreError("the store is away")

    with pytest.raises(StoreError, match="is away"):
        shared.recent("one", fail, shared_for_s=PLENTY, budget_s=PLENTY)
    assert shared.recent("one", lambda: 5, shared_for_s=PLENTY, budget_s=PLENTY) == 5
