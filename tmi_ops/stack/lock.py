"""File locks of the stack, which the kernel releases when their process ends.

Two locks, so that a crash leaves nothing to clean up by hand:

1. The supervisor's, exclusive, held while it lives. A second `up` notices it.
2. The servers', shared: every server inherits it, so it is free when the last one has ended. After a crash the next
   supervisor waits for it until the old servers have shut down.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """One open lock file; the lock lasts until `close`, and in processes that inherited `descriptor`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def try_exclusive(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def await_exclusive(self, timeout_s: float) -> bool:
        """Take the lock as soon as it is free; False after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def share(self) -> None:
        """Turn the exclusive lock into a shared one, which processes inherit."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def sign(self, pid: int) -> None:
        """Write the holder's process id, for `holder`."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(pid).encode(), 0)

    def close(self) -> None:
        os.close(self.descriptor)


def holder(file: Path) -> int | None:
    """Process id of the holder of the exclusive lock; 0 if it has not signed yet, None if the lock is free."""
    if not file.exists():
        return None
    lock = FileLock(file)
    try:
        # Shared, so that two callers do not take each other for the holder.
        fcntl.flock(lock.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(file.read_text().strip() or 0)
    else:
        return None
    finally:
        lock.close()
