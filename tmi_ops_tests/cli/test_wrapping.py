"""Long lines on a narrow terminal."""

from __future__ import annotations

from tmi_ops.cli.wrapping import wrapped


def test_lines_break_between_words_and_hang_below_the_first() -> None:
    lines = wrapped("error: the store could not be read", 20, hang=7).split("\n")
    assert lines == ["error: the store", "       could not be", "       read"]


def test_a_command_in_backticks_is_never_cut_even_where_it_is_wider_than_the_line() -> None:
    command = "`tmi-ops restore --to-time 10m --into DIR`"
    assert wrapped(f"next: run {command}, then look", 20, hang=6) == f"next: run\n      {command},\n      then look"


def test_short_text_and_empty_lines_stay_as_they_are_and_own_indents_are_kept() -> None:
    assert wrapped("a b", 80) == "a b"
    assert wrapped("what\n\n  indented words here", 12, hang=2) == "what\n\n    indented\n    words\n    here"


def test_a_word_longer_than_the_line_stands_alone() -> None:
    assert wrapped("see https://example.org/a/long/address now", 10, hang=2) == (
        "see\n  https://example.org/a/long/address\n  now"
    )
