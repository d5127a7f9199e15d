"""Long lines on a narrow terminal: broken between words, never inside a command, the rest hanging below the first."""

from __future__ import annotations

import re
import shutil
import sys

import click

# What is in backticks is one word: a command that is cut cannot be copied.
_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+")
_LEAST_WIDTH = 40


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """The text in lines of at most `width` columns where its words allow it; each line after a paragraph's first is
    indented by `hang`. What is indented or empty in `text` stays a line of its own.
    """
    return "\n".join(
        _line_wrapped(line, width, 0 if number == 0 else hang, hang) for number, line in enumerate(text.split("\n"))
    )


def echo_wrapped(text: str, hang: int = 0, *, fg: str | None = None, bold: bool = False) -> None:
    """Print on stderr; wrapped where a person looks, as it is in a file or a pipe, so that it can be searched."""
    if sys.stderr.isatty():
        text = wrapped(text, max(_LEAST_WIDTH, shutil.get_terminal_size().columns), hang)
    click.secho(text, fg=fg, bold=bold, err=True)


def _line_wrapped(line: str, width: int, indent: int, hang: int) -> str:
    own = len(line) - len(line.lstrip())
    lines, current = [], " " * (indent + own)
    empty = True
    for word in _WORD.findall(line):
        if not empty and len(current) + 1 + len(word) > width:
            lines.append(current)
            current, empty = " " * (hang + (own if indent else 0)), True
        current, empty = (current if empty else current + " ") + word, False
    return "\n".join([*lines, current]).rstrip() if line.strip() else ""
