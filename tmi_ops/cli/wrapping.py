"""Long lines on a narrow terminal: broken between words, never inside a command, the rest hanging below the first."""

from __future__ import annotations

import re
import shutil
import sys

import click

from tmi_ops.cli.called import as_typed

# What is in backticks is one word: a command that is cut cannot be copied.
_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+")
# A label and the column that it stands in front of.
_LABEL = re.compile(r"\s*\S+(?: \S+)*?\s{2,}(?=\S)")
_LEAST_WIDTH = 40


def line_breaks(line: str, width: int, hang: int) -> list[int]:
    """Where a line of text is to be broken: offsets at which words begin that go to the next line.

    Args:
        width: columns that there are.
        hang: by how many columns every line after the first is indented.
    """
    breaks, begin, indent = [], 0, 0
    first = True
    for word in _WORD.finditer(line):
        if not first and indent + word.end() - begin > width:
            breaks.append(word.start())
            begin, indent = word.start(), hang
        first = False
    return breaks


def hanging(line: str, most: int) -> int:
    """Below what the rest of a line hangs: the text after its label ("keep    ID"), else two columns further in."""
    label = _LABEL.match(line)
    own = len(line) - len(line.lstrip())
    return label.end() if label and label.end() <= most else own + 2


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """The text in lines of at most `width` columns where its words allow it, the rest of each line hanging."""
    return "\n".join(_pieces(line, width, hang) for line in text.split("\n"))


def echo_wrapped(text: str, hang: int = 0, *, fg: str | None = None, bold: bool = False) -> None:
    """Print on stderr, commands as they work when typed; wrapped where a person looks, as it is in a file or a pipe, so
    that it can be searched."""
    text = as_typed(text)
    if sys.stderr.isatty():
        text = wrapped(text, max(_LEAST_WIDTH, shutil.get_terminal_size().columns), hang)
    click.secho(text, fg=fg, bold=bold, err=True)


def _pieces(line: str, width: int, hang: int) -> str:
    breaks = line_breaks(line, width, hang)
    pieces = [line[begin:end].rstrip() for begin, end in zip([0, *breaks], [*breaks, len(line)], strict=True)]
    return f"\n{' ' * hang}".join(pieces)
