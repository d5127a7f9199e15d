"""A stop that comes at an unlucky instant is not lost."""

from __future__ import annotations

import subprocess
import sys

# Python drops what a destructor raises; so a signal that comes there stopped nothing.
_UNLUCKY = """
import os, signal, time
from tmi_ops.cli import main

class Unlucky:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

def run(argv):
    unlucky = Unlucky()
    del unlucky
    time.sleep(20)
    return 0

def as_ever(argv, run_before=main._run):
    try:
        return run(argv)
    except KeyboardInterrupt:
        return main.INTERRUPTED

main._run = as_ever
main.main([])
"""


def test_a_sigterm_that_comes_where_exceptions_are_dropped_is_sent_once_more() -> None:
    done = subprocess.run([sys.executable, "-c", _UNLUCKY], check=False, timeout=15, capture_output=True)
    assert done.returncode == 130, done.stderr


_DROPPED = """
import sys
from tmi_ops.cli import main

class Dropped:
    def __del__(self):
        raise ValueError("told")

sys.unraisablehook = main.stop_again
dropped = Dropped()
del dropped
"""


def test_what_else_is_dropped_is_still_told_and_stops_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _DROPPED], check=False, timeout=15, capture_output=True, text=True)
    assert done.returncode == 0
    assert "ValueError: told" in done.stderr
