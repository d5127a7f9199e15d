"""Servers that outlived their supervisor: waited for while their guards stop them, ended when they have no guard."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tmi_ops.errors import StackError
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.lock import FileLock

# A guard gives its server 15 s.
GUARD_TIMEOUT_S = 18.0
PROCESSES = Path("/proc")


def take_servers_lock(layout: StackLayout) -> FileLock:
    """The servers' lock, exclusive: no server of this stack lives any more.

    Raises:
        StackError: some would not end.
    """
    lock = FileLock(layout.servers_lock)
    if lock.await_exclusive(GUARD_TIMEOUT_S):
        return lock
    # Whoever holds our lock is a server of ours, and nobody is left to stop it. Interrupted, all of them end in order.
    for pid in _holders(layout.servers_lock):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    if lock.await_exclusive(GUARD_TIMEOUT_S):
        return lock
    lock.close()
    pids = " ".join(str(pid) for pid in _holders(layout.servers_lock))
    raise StackError(
        f"Servers of a stack whose supervisor died will not end (processes: {pids or 'unknown'}).",
        detail="They were interrupted, not killed; their data stays.",
        hint=f"end the processes that hold {layout.servers_lock} open, then try again",
    )


def _holders(file: Path) -> list[int]:
    """Processes other than ourselves that have `file` open; none where there is no /proc."""
    return [
        int(entry.name)
        for entry in (PROCESSES.iterdir() if PROCESSES.is_dir() else ())
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_open(entry, file)
    ]


def _has_open(process: Path, file: Path) -> bool:
    with suppress(OSError):  # it ended meanwhile, or is somebody else's
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    return False
