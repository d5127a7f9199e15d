"""The place of a drill: a directory that is gone afterwards, whatever happens.

An exception and Ctrl-C remove it at once. After `kill -9` or a power cut it stays, and the next drill removes it: a
directory whose lock nobody holds belongs to nobody.
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
    """A directory of its own below `root`, which an unprivileged server can enter."""
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
    """Remove what drills left behind that could not clear up after themselves.

    Returns:
        What was removed.
    """
    if not root.is_dir():
        return []
    with _alone_in(root):
        return _remove_abandoned(root)


def find_abandoned(root: Path) -> list[Path]:
    """What `remove_abandoned` would remove."""
    if not root.is_dir():
        return []
    with _alone_in(root):
        return _abandoned(root)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Between a directory's making and its locking nobody may take it for abandoned."""
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
