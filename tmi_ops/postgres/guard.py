"""Ends servers and programs that we started when we end: a guard waits on a pipe that only this process holds open.

However this process ends, even by SIGKILL, the pipe closes; the guard then stops the process and removes its directory
if asked to. (PR_SET_PDEATHSIG does not work: it fires when the *thread* that started the child ends.)
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.postgres.programs import plain_environment

# Interrupt first (PostgreSQL: fast shutdown), then quit (PostgreSQL: immediate), then the process's whole group.
_SCRIPT = """
ended_within() {
  tries=0
  while kill -0 "$1" 2>/dev/null; do
    [ "$tries" -lt "$2" ] || return 1
    tries=$((tries + 1))
    sleep 0.1
  done
}
read -r word
if [ "$word" != released ]; then
  kill -INT "$1" 2>/dev/null
  ended_within "$1" 100 || { kill -QUIT "$1" 2>/dev/null; ended_within "$1" 50; }
  kill -KILL "-$1" 2>/dev/null
  shift
  [ "$#" = 0 ] || rm -rf -- "$@"
fi
"""


@dataclass
class Guard:
    """The process that ends `pid` when we are gone."""

    process: subprocess.Popen[bytes]

    def release(self) -> None:
        """End the guard, because the server has ended."""
        if self.process.stdin is None or self.process.stdin.closed:
            return
        with contextlib.suppress(OSError):
            self.process.stdin.write(b"released\n")
            self.process.stdin.close()
        self.process.wait()


def guard(pid: int, remove: Sequence[Path] = ()) -> Guard:
    """If we end without releasing the guard, end `pid`, the leader of a process group, and remove `remove`."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT, "tmi-ops-guard", str(pid), *map(str, remove)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=plain_environment(),
    )
    return Guard(process)
