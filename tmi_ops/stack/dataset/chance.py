"""The data set's only source of chance: a seed gives the same picks, identifiers and times everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

T = TypeVar("T")

SECONDS_A_DAY = 86_400
HISTORY_DAYS = 730
FIRST_BASE = datetime(2025, 3, 1, tzinfo=UTC)
_WEEKEND = 5
_VARIANTS = "89ab"
_CLOCK = tuple(
    f"{hour:02}:{minute:02}:{second:02}" for hour in range(24) for minute in range(60) for second in range(60)
)


class Chance(random.Random):
    """A seeded generator with the draws a data set needs. Made for millions of draws: plain and without checks."""

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, all alike."""
        return options[int(self.random() * len(options))]

    def likely(self, probability: float) -> bool:
        """True with `probability`."""
        return self.random() < probability

    def span(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def few(self, mean: float, most: int) -> int:
        """A count around `mean`, never above `most`: many small ones, a few large ones."""
        return min(most, int(self.expovariate(1.0) * mean + 0.5))

    def uuid(self) -> str:
        """A version 4 UUID."""
        digits = f"{self.getrandbits(128):032x}"
        variant = _VARIANTS[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def hexadecimal(self, length: int) -> str:
        """`length` lower-case hexadecimal digits."""
        return f"{self.getrandbits(4 * length):0{length}x}"


class Calendar:
    """Two years of history that end on a date derived from the seed, never today.

    Moments are whole seconds since the first day; `stamp` writes one as PostgreSQL reads it.
    """

    def __init__(self, seed: int, chance: Chance) -> None:
        end = FIRST_BASE + timedelta(days=seed % 365)
        self._first_day = end - timedelta(days=HISTORY_DAYS)
        self._chance = chance
        # Tokens and sessions expire after the last day, so the calendar knows some days more.
        self._days = tuple(f"{self._first_day + timedelta(days=day):%Y-%m-%d}" for day in range(HISTORY_DAYS + 120))
        self.end = HISTORY_DAYS * SECONDS_A_DAY

    def moment(self, after: int = 0, before: int | None = None) -> int:
        """A moment between the two, on a working day's hours where the stretch is long enough."""
        until = self.end if before is None else before
        chance = self._chance
        drawn = after + int(chance.random() * max(1, until - after))
        if until - after < 10 * SECONDS_A_DAY:
            return drawn
        day = drawn // SECONDS_A_DAY
        weekday = (self._first_day.weekday() + day) % 7
        if weekday >= _WEEKEND and chance.likely(0.9):
            day -= weekday - _WEEKEND + 1
        working = day * SECONDS_A_DAY + int((8 + 11 * (chance.random() + chance.random()) / 2) * 3600)
        return min(max(working, after), until)

    def later(self, moment: int, typical_days: float) -> int:
        """A moment after `moment`, `typical_days` on average, not beyond the end of history."""
        return min(self.end, moment + 1 + int(self._chance.expovariate(1.0) * typical_days * SECONDS_A_DAY))

    def stamp(self, moment: int) -> str:
        """`2026-03-14 09:26:53.589793+00`; the same moment gives the same text."""
        day, second = divmod(moment, SECONDS_A_DAY)
        return f"{self._days[day]} {_CLOCK[second]}.{moment * 7919 % 1_000_000:06}+00"

    def iso(self, moment: int) -> str:
        """The moment as JSON carries it: `2026-03-14T09:26:53Z`."""
        day, second = divmod(moment, SECONDS_A_DAY)
        return f"{self._days[day]}T{_CLOCK[second]}Z"
