"""Stores WAL files before archive_command asks for them: the server hands over one file at a time and waits.

Each file stored ahead leaves a note, an empty file outside the data directory, so that archive_command can answer
without asking the store. A note is valid for ten minutes, and only while the file and the settings are unchanged.
Without a valid note, the file is looked up in the store.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BELIEVED_FOR_S = 600.0
MOST_AHEAD = 16
READY = ".ready"


@dataclass(frozen=True)
class Notes:
    """The notes of one user about one store."""

    directory: Path

    def take(self, path: Path) -> bool:
        """Return whether this file, unchanged, was stored ahead, and remove its note."""
        note = self.directory / _identity(path)
        try:
            age = time.time() - note.stat().st_mtime
            note.unlink()
        except OSError:
            return False
        return 0 <= age < BELIEVED_FOR_S

    def leave(self, path: Path) -> None:
        """Record that this file is stored."""
        (self.directory / _identity(path)).touch()

    def forget_old(self) -> None:
        """Remove expired notes."""
        for note in self.directory.iterdir():
            if time.time() - note.stat().st_mtime >= BELIEVED_FOR_S:
                note.unlink(missing_ok=True)


def open_notes(settings: Mapping[str, str]) -> Notes | None:
    """Open the notes for these settings. None if their directory is not private to this user.

    Args:
        settings: every variable that could change which store is written to. Only a hash of them is kept.
    """
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:24]
    top = Path(tempfile.gettempdir()) / f"tmi-ops-wal-push-{os.geteuid()}"
    try:
        for directory in (top, top / digest):
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return None
    except OSError:
        return None
    return Notes(top / digest)


def ready_after(path: Path, most: int = MOST_AHEAD) -> list[Path]:
    """The files that archive_status lists as ready after `path`, in the order in which the server hands them over."""
    try:
        names = [
            entry.name.removesuffix(READY) for entry in (path.parent / "archive_status").iterdir() if _is_ready(entry)
        ]
    except OSError:
        return []
    return [path.parent / name for name in sorted(names) if name > path.name][:most]


def _is_ready(entry: Path) -> bool:
    return entry.name.endswith(READY)


def _identity(path: Path) -> str:
    """A name that changes when the file does: PostgreSQL recycles a segment's file for a later segment."""
    found = path.stat()
    return f"{path.name}-{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
