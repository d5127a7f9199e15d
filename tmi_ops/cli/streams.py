"""Protects a command from its terminal, and the terminal from what a command prints.

A command continues if its terminal goes away: a closed pipe, a closed window, a lost ssh connection. Text from a
database or a store cannot control the terminal: of all escape sequences, only our own colours pass.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tmi_ops.text import printable

# Colours, bold, dim and reset, as click writes them; nothing that hides text.
_COLOUR = re.compile("(\x1b\\[(?:0|1|2|22|39|3[0-7]|9[0-7])m)")


def escaped(text: str) -> str:
    """The text with every escape sequence escaped, except for our colours."""
    if text.isprintable():
        return text
    return "".join(part if _COLOUR.fullmatch(part) else printable(part) for part in _COLOUR.split(text))


class _ProtectedStream:
    """A stream whose reader may go away; what is written from then on is discarded."""

    def __init__(self, stream: TextIO, announce: Callable[[str], None]) -> None:
        self._stream = stream
        self._announce = announce
        self.reader_is_gone = False

    @property
    def unescaped(self) -> _Unescaped:
        return _Unescaped(self)

    def write(self, text: str) -> int:
        return self.write_unescaped(escaped(text))

    def write_unescaped(self, text: str) -> int:
        self._announce(text)
        try:
            return self._stream.write(text)
        except OSError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        """Discard the stream's buffer, too: it must not fail again when the process ends."""
        self.reader_is_gone = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Unescaped:
    """The same stream for code that draws with escape sequences and escapes text itself."""

    def __init__(self, stream: _ProtectedStream) -> None:
        self._stream = stream
        self.write = stream.write_unescaped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def protected_streams(announce: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """During a `with` block, a reader that goes away neither stops the command nor changes its exit code.

    Args:
        announce: gets each text before it is written.
    """
    streams: tuple[TextIO | None, TextIO | None] = sys.stdout, sys.stderr
    # A caller may have closed a stream (2>&-); then it is None, and nothing is written to it.
    protected = [_ProtectedStream(stream, announce) if stream is not None else None for stream in streams]
    sys.stdout, sys.stderr = protected
    try:
        yield
    finally:
        for stream in protected:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = streams


def reader_is_gone() -> bool:
    """Whether nobody reads stdout any more; for what would print for ever."""
    return bool(getattr(sys.stdout, "reader_is_gone", False))


@contextmanager
def through_hangups() -> Iterator[None]:
    """A terminal that goes away ends neither what is done in a `with` block nor the programs that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
