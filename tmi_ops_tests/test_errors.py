"""What an error says in one line."""

from __future__ import annotations

import pytest

from tmi_ops.errors import first_line


@pytest.mark.parametrize(
    ("said", "line"),
    [("relation gone\nLINE 1: SELECT", "relation gone"), ("\n  \n out of room \n", "out of room"), ("", "ValueError")],
)
def test_an_error_s_first_line_is_the_first_that_says_something_or_its_kind(said: str, line: str) -> None:
    assert first_line(ValueError(said)) == line
