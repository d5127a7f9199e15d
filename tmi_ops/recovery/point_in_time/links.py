"""Protects the links to a cluster's tablespaces during the replay.

A base backup's tablespaces are linked to their new locations. A tablespace that is created later, in the WAL, would be
created at its old path; on the server's own machine, the replay would silently overwrite its files. So no link can be
created or removed during the replay, and PostgreSQL stops at such a record before it writes anything. When it is
started again, there is a directory for the tablespace and a record that creates it there (see redirect.py).

A server that bypasses closed directories (see postgres/unprivileged.py) bypasses this one, too.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.recovery.point_in_time.destination import TABLESPACES

_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextlib.contextmanager
def fixed_links(directory: Path) -> Iterator[None]:
    """Keep the links in a data directory from being changed for the length of a `with` block."""
    links = directory / TABLESPACES
    mode = stat.S_IMODE(links.stat().st_mode)
    links.chmod(mode & ~_WRITE)
    try:
        yield
    finally:
        links.chmod(mode)


def make_place(directory: Path, oid: int, identity: ServerIdentity) -> Path:
    """Create the directory for an in-place tablespace, which the server itself may not create."""
    place = directory / TABLESPACES / str(oid)
    links = place.parent
    mode = stat.S_IMODE(links.stat().st_mode)
    links.chmod(mode | stat.S_IWUSR)
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    finally:
        links.chmod(mode)
    identity.take_over(place)
    return place
