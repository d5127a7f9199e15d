"""Wraps long lines between words, never inside a command, with a hanging indent."""

from __future__ import annotations

import re
import shutil
import sys

import click

from tmi_ops.cli.printed_commands import as_typed

# Text in backquotes is one word: a command that is broken cannot be copied.
_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+")
# A label before a column of text.
_LABEL = re.compile(r"\s*\S+(?: \S+)*?\s{2,}(?=\S)")
_LEAST_WIDTH = 40
# A comment behind a statement or a command, or one that is the whole line.
_COMMENT = re.compile(r"(?:^|\s{2,})(?P<mark>--|#) ")


def line_breaks(line: str, width: int, hang: int) -> list[int]:
    """Offsets of the words that begin a new line.

    Args:
        width: columns of the terminal.
        hang: indent of every line after the first.
    """
    breaks, begin, indent = [], 0, 0
    first = True
    for word in _WORD.finditer(line):
        if not first and indent + word.end() - begin > width:
            breaks.append(word.start())
            begin, indent = word.start(), hang
        first = False
    return breaks


def comment_of(line: str) -> tuple[int, str]:
    """Where the comment of a typed line begins, and its mark; the line's length and "" if it has none."""
    found = _COMMENT.search(line)
    return (found.start("mark"), found["mark"]) if found else (len(line), "")


def hanging(line: str, most: int) -> int:
    """The hanging indent: the column of the text after a label ("keep    ID"), or two more than the line's own."""
    label = _LABEL.match(line)
    own = len(line) - len(line.lstrip())
    return label.end() if label and label.end() <= most else own + 2


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """The text in lines of at most `width` columns, unless a word is longer."""
    return "\n".join(_pieces(line, width, hang) for line in text.split("\n"))


def echo_wrapped(text: str, hang: int = 0, *, fg: str | None = None, bold: bool = False) -> None:
    """Print on stderr, with the environment in commands. Wrapped on a terminal only, so that a log can be searched."""
    text = as_typed(text)
    if sys.stderr.isatty():
        text = wrapped(text, max(_LEAST_WIDTH, shutil.get_terminal_size().columns), hang)
    click.secho(text, fg=fg, bold=bold, err=True)


def _pieces(line: str, width: int, hang: int) -> str:
    breaks = line_breaks(line, width, hang)
    pieces = [line[begin:end].rstrip() for begin, end in zip([0, *breaks], [*breaks, len(line)], strict=True)]
    return f"\n{' ' * hang}".join(pieces)
