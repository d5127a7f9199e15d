"""Directories that the unprivileged account of a server must be able to enter."""

from __future__ import annotations

import stat
from pathlib import Path


def let_everybody_enter(place: Path) -> None:
    """Also the two above it, which pytest closes. Rights are added only: one of them may be the system's own `/tmp`."""
    for directory in (place, *place.parents[:2]):
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o055)
