"""The directory of a store, identified by its id: a mount point without its disk never passes for an empty store.

`.tmi-ops-store/id` contains random digits, written when the store is created. Every later opening checks them and stops
if they differ: nothing is read from another directory in its place, and nothing is written to it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.private import write_private

OWN_FOLDER = ".tmi-ops-store"
_ID, _ID_BYTES = "id", 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Top:
    """A directory, as long as it is the one with this id. Safe for several threads."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity
        self._known: tuple[int, int, int] | None = None

    def open(self) -> int:
        """Open a descriptor of the directory.

        Raises:
            StoreError: it is gone, or another directory is in its place.
        """
        try:
            descriptor = os.open(self.path, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            raise self._lost() from None
        try:
            self._require_same(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_same(self, descriptor: int) -> None:
        facts = os.fstat(descriptor)
        # Another disk mounted there may have the same device and inode numbers, but not the same nanosecond.
        known = (facts.st_dev, facts.st_ino, facts.st_ctime_ns)
        if known != self._known:
            if _read_identity(descriptor) != self._identity:
                raise self._lost()
            self._known = known

    def _lost(self) -> StoreError:
        return StoreError(
            f"The directory {self.path} is no longer the store that was opened.",
            detail="Nothing was read from what is there now, and nothing was written to it.",
            hint=f"mount its disk again: `findmnt --target {self.path}`",
            code=Code.STORE_ADDRESS,
            transient=True,
        )


def read_identity(path: Path) -> str | None:
    """The id of the store in a directory; None if there is none."""
    descriptor = os.open(path, _FOLDER)
    try:
        return _read_identity(descriptor)
    finally:
        os.close(descriptor)


def make_identity(path: Path) -> None:
    """Make a directory a store, unless it is one."""
    if read_identity(path) is not None:
        return
    own = path / OWN_FOLDER
    own.mkdir(0o700, exist_ok=True)
    write_private(own / _ID, f"{secrets.token_hex(_ID_BYTES)}\n")
    descriptor = os.open(path, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_identity(top: int) -> str | None:
    try:
        own = os.open(OWN_FOLDER, _FOLDER | os.O_NOFOLLOW, dir_fd=top)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        with os.fdopen(os.open(_ID, _READ, dir_fd=own), "rb") as file:
            found = file.read(2 * _ID_BYTES).decode("latin-1")
    except FileNotFoundError:
        return None
    finally:
        os.close(own)
    return found if len(found) == 2 * _ID_BYTES and found.isalnum() else None
