"""Long lines on a narrow terminal."""

from __future__ import annotations

import io

import pytest

from tmi_ops.cli.terminal import SafeConsole
from tmi_ops.cli.wrapping import comment_of, hanging, wrapped


def test_lines_break_between_words_and_hang_below_the_first() -> None:
    lines = wrapped("error: the store could not be read", 20, hang=7).split("\n")
    assert lines == ["error: the store", "       could not be", "       read"]


def test_a_command_in_backticks_is_never_cut_even_where_it_is_wider_than_the_line() -> None:
    command = "`tmi-ops restore --to-time 10m --into DIR`"
    assert wrapped(f"next: run {command}, then look", 20, hang=6) == f"next: run\n      {command},\n      then look"


def test_short_text_and_empty_lines_stay_as_they_are_and_own_indents_are_kept() -> None:
    assert wrapped("a b", 80) == "a b"
    assert wrapped("what\n\n  indented words here", 12, hang=4) == "what\n\n  indented\n    words\n    here"


def test_a_word_longer_than_the_line_stands_alone() -> None:
    assert wrapped("see https://example.org/a/long/address now", 10, hang=2) == (
        "see\n  https://example.org/a/long/address\n  now"
    )


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("keep    20261127-base  the newest", 8),
        ("  ✓ host name   is known", 16),
        ("only words here", 2),
        ("  words", 4),
    ],
)
def test_the_rest_of_a_line_hangs_below_what_follows_its_label(line: str, columns: int) -> None:
    assert hanging(line, 40) == columns


def test_a_screen_is_wrapped_for_a_person_and_left_alone_in_a_pipe() -> None:
    line = "[green]keep[/]    20261127T235104Z-logical-3194  proven: the newest; see `tmi-ops prune --dry-run` for all"
    seen, piped = (
        SafeConsole(file=io.StringIO(), width=60, force_terminal=terminal, color_system=None, highlight=False)
        for terminal in (True, False)
    )
    for console in (seen, piped):
        console.say(line)
    assert written(seen) == (
        "keep    20261127T235104Z-logical-3194  proven: the newest;\n        see `tmi-ops prune --dry-run` for all\n"
    )
    assert written(piped) == line.replace("[green]", "").replace("[/]", "") + "\n"


def test_a_statement_stays_whole_and_its_comment_goes_above_it_where_both_are_too_wide() -> None:
    line = "    REVOKE CONNECT ON DATABASE tmi FROM PUBLIC;  -- declared roles keep it; grant it to others that need it"
    seen, wide, piped = (
        SafeConsole(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
        for width, terminal in ((60, True), (200, True), (60, False))
    )
    for console in (seen, wide, piped):
        console.show_typed(line)
    assert written(seen) == (
        "    -- declared roles keep it; grant it to others that\n    -- need it\n"
        "    REVOKE CONNECT ON DATABASE tmi FROM PUBLIC;\n"
    )
    assert written(wide) == written(piped) == line + "\n"


@pytest.mark.parametrize(
    ("line", "begin", "mark"),
    [
        ("-- a comment alone", 0, "--"),
        ("tmi-ops backup base  # takes minutes", 21, "#"),
        ("SELECT '--' || x", 16, ""),
        ("echo a#b", 8, ""),
    ],
)
def test_a_comment_is_known_by_its_mark_and_the_blanks_before_it(line: str, begin: int, mark: str) -> None:
    assert comment_of(line) == (begin, mark)


def written(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
