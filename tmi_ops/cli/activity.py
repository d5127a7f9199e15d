"""The line on a terminal that says that a command is at work, until it shows something itself.

Every command gets it from `main`, because a store or a server that answers slowly is not a command's own affair.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

import click

from tmi_ops.progress import awaited
from tmi_ops.text import printable

# As long as a person takes an empty screen for an answer on its way.
AFTER_S = 0.5
_REDRAW_S = 0.2
_CLEAR = "\r\x1b[K"
# What moves or hides the cursor and shows nothing: progress bars send it before their first bar.
_UNSEEN = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|\r")


class Activity:
    """`with Activity(sys.stderr) as activity`: every text that is about to be written goes through `make_way` first.

    Before a command has shown anything, the line says that it works, whatever it does. Afterwards it appears between
    whole lines only, and only while a server is awaited: a service that sleeps has nothing to say.

    Shows nothing if the stream is closed, no terminal, or one that cannot clear a line.
    """

    def __init__(self, stream: TextIO | None, after_s: float = AFTER_S) -> None:
        self._stream = stream
        self._after_s = after_s
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._over = threading.Event()
        self._spoke = False
        self._in_a_line = False
        self._shows = False
        if stream is None or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            self._over.set()

    def __enter__(self) -> Activity:
        if not self._over.is_set():
            threading.Thread(target=self._watch, name="activity", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def make_way(self, text: str) -> None:
        """The command shows something, which the line must not touch."""
        seen = _UNSEEN.sub("", text)
        if self._over.is_set() or not seen:
            return
        with self._lock:
            self._clear()
            self._spoke = True
            self._in_a_line = not seen.endswith("\n")

    def end(self) -> None:
        """Show nothing more, and remove what is shown."""
        with self._lock:
            self._over.set()
            self._clear()

    def show(self) -> None:
        """Show what the command does if it has done so long enough, else nothing."""
        with self._lock:
            if self._over.is_set():
                return
            line = self._line()
            if line is None:
                self._clear()
                return
            self._shows = True
            self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])

    def _line(self) -> str | None:
        what, seconds = awaited() or ("", 0.0)
        if not self._spoke:
            seconds = time.monotonic() - self._began
        if self._in_a_line or seconds < self._after_s or (self._spoke and not what):
            return None
        return f"{f'Waiting for {printable(what)}' if what else 'Working'} ... {seconds:.0f} s"

    def _watch(self) -> None:
        while not self._over.wait(_REDRAW_S):
            self.show()

    def _clear(self) -> None:
        if self._shows:
            self._write(_CLEAR)
            self._shows = False

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        with suppress(OSError, ValueError):  # the terminal is gone
            self._stream.write(text)
            self._stream.flush()


def ends_activity(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """The callback of options that ask for silence."""
    activity = context.find_object(Activity)
    if value and activity is not None:
        activity.end()
    return value
