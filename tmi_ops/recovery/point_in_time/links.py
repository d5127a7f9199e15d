"""The links to a cluster's tablespaces, which the replay must not change.

A base's tablespaces are linked to their new places. One that is created in the WAL after it would be made where it was
on the server: on the server's own machine that is where its files are, and the replay would write over them, silently.
So no link can be made or removed meanwhile; PostgreSQL ends at such a record, before it writes anything there. Started
again, it finds a directory made for the tablespace, and a record that creates it there (see redirect.py).

A server that passes closed directories (see postgres/unprivileged.py) passes this one, too.
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
    """The links in a data directory stay as they are for the length of a `with` block."""
    links = directory / TABLESPACES
    mode = stat.S_IMODE(links.stat().st_mode)
    links.chmod(mode & ~_WRITE)
    try:
        yield
    finally:
        links.chmod(mode)


def make_place(directory: Path, oid: int, identity: ServerIdentity) -> Path:
    """The directory in which a replay creates the tablespace `oid` in place; the server itself may not make it."""
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
