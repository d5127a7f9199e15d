"""The directory of a drill, which is always removed afterwards.

It is removed at the end, on errors and on Ctrl-C. After `kill -9` or a power cut, the next drill removes it: a
directory whose lock is free is abandoned.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PREFIX = "drill-"
_LOCK = "lock"


@contextmanager
def drill_directory(root: Path) -> Iterator[Path]:
    """Create a directory below `root` that an unprivileged server can enter."""
    root.mkdir(parents=True, exist_ok=True)
    with _alone_in(root):
        _remove_abandoned(root)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = _locked(directory / _LOCK)
    with lock:
        try:
            directory.chmod(0o755)
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned(root: Path) -> list[Path]:
    """Remove the directories of drills that were killed.

    Returns:
        The removed directories.
    """
    if not root.is_dir():
        return []
    with _alone_in(root):
        return _remove_abandoned(root)


def find_abandoned(root: Path) -> list[Path]:
    """The directories that `remove_abandoned` would remove."""
    if not root.is_dir():
        return []
    with _alone_in(root):
        return _abandoned(root)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keep others from taking a directory for abandoned between its creation and its locking."""
    with (root / f"{PREFIX.rstrip('-')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(path: Path) -> IO[str]:
    lock = path.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _abandoned(root: Path) -> list[Path]:
    found = []
    for directory in root.glob(f"{PREFIX}*/"):
        with suppress(OSError), _locked(directory / _LOCK):
            found.append(directory)
    return found


def _remove_abandoned(root: Path) -> list[Path]:
    abandoned = _abandoned(root)
    for directory in abandoned:
        shutil.rmtree(directory, ignore_errors=True)
    return abandoned
