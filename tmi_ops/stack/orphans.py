"""Servers that outlived their supervisor: waits while their guards stop them, interrupts those without a guard."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import StackError
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.lock import FileLock

# A guard gives its server 15 s.
GUARD_TIMEOUT_S = 18.0
PROCESSES = Path("/proc")


def take_servers_lock(layout: StackLayout) -> FileLock:
    """Take the servers' lock exclusively, once no server of this stack is running.

    Raises:
        StackError: some servers did not end.
    """
    lock = FileLock(layout.servers_lock)
    if lock.await_exclusive(GUARD_TIMEOUT_S):
        return lock
    # Only our servers hold the lock, and nothing else will stop them. SIGINT shuts all of them down cleanly.
    for pid in _holders(layout.servers_lock):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    if lock.await_exclusive(GUARD_TIMEOUT_S):
        return lock
    lock.close()
    pids = " ".join(str(pid) for pid in _holders(layout.servers_lock))
    raise StackError(
        f"Servers of a stack whose supervisor died did not end (processes: {pids or 'unknown'}).",
        detail="They were interrupted, not killed; their data is kept.",
        hint=f"end the processes that have {layout.servers_lock} open, then try again",
        code=Code.STACK_NOT_STOPPED,
    )


def _holders(file: Path) -> list[int]:
    """Processes other than ours that have `file` open; none if there is no /proc."""
    return [
        int(entry.name)
        for entry in (PROCESSES.iterdir() if PROCESSES.is_dir() else ())
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_open(entry, file)
    ]


def _has_open(process: Path, file: Path) -> bool:
    with suppress(OSError):  # it has ended, or belongs to another user
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    return False
