from __future__ import annotations

import pytest

from tmi_ops.text import format_duration, format_size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (4.04, "4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61, "1 min 1 s"),
        (3599.7, "1 h"),
        (3725, "1 h 2 min"),
        (14400, "4 h"),
        (86400, "24 h"),
        (172800, "2 d"),
        (180061, "2 d 2 h"),
    ],
)
def test_a_stretch_of_time_is_said_in_two_units_at_most_and_in_one_where_that_says_all(
    seconds: float, words: str
) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (5e18, "5000.0 PB"), (-2048, "-2.0 kB")],
)
def test_a_size_is_said_in_decimal_units(size: float, words: str) -> None:
    assert format_size(size) == words
