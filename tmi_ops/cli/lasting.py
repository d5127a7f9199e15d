"""A terminal may go away while a command is at work: a closed pipe, a closed window, a dying ssh. The work goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class _Lasting:
    """A stream whose reader may go away: what is written from then on goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.reader_is_gone = False

    def write(self, text: str) -> int:
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
        """What is still in the stream's buffer must not fail once more when the process ends."""
        self.reader_is_gone = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """A reader who goes away neither stops what is done in a `with` block nor changes how it ends."""
    streams = sys.stdout, sys.stderr
    lasting = _Lasting(streams[0]), _Lasting(streams[1])
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
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
