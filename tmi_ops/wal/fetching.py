"""Fetches one file of the archive and checks its content."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tmi_ops.errors import ObjectMissingError
from tmi_ops.postgres.wal_files import (
    PARTIAL_SUFFIX,
    Segment,
    TimelineSwitch,
    check_header,
    history_name,
    parse_header,
    parse_history,
    parse_segment_name,
)
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.lineage import FIRST_TIMELINE
from tmi_ops.wal.partials import load_open
from tmi_ops.wal.stored_file import FileFacts, load, wal_damaged


def fetch_wal_file(store: ObjectStore, system_identifier: str, name: str, destination: Path) -> bool:
    """Fetch a segment, a `.partial` (by that name) or a `.history`, check it and write it to `destination`.

    The file appears whole or not at all. Thread-safe for different destinations.

    Returns:
        False if the archive has no such file; nothing was written.

    Raises:
        IntegrityError: the size, SHA-256 or header is wrong; nothing was written.
        StoreError: the store failed, or the private key is missing or does not fit.
    """
    content = read_wal_file(store, system_identifier, name)
    if content is None:
        return False
    unfinished = destination.with_name(f"{destination.name}.fetching")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(destination)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    return True


def read_wal_file(store: ObjectStore, system_identifier: str, name: str) -> bytes | None:
    """Like `fetch_wal_file`, into memory. None: the archive has no such file."""
    try:
        content, _ = load_file(store, system_identifier, name)
    except ObjectMissingError:
        return None
    if not name.endswith(".history"):
        check_content(content, name.removesuffix(PARTIAL_SUFFIX), system_identifier)
    return content


def load_file(store: ObjectStore, system_identifier: str, name: str) -> tuple[bytes, FileFacts]:
    """Read a file of the archive (or a `.partial`) by its name and check it.

    Raises:
        As `stored_file.load`.
    """
    if name.endswith(PARTIAL_SUFFIX):
        return load_open(store, system_identifier, name.removesuffix(PARTIAL_SUFFIX))
    return load(store, system_identifier, name)


def check_content(content: bytes, name: str, system_identifier: str) -> Segment:
    """Check that these bytes are the whole segment of that name and cluster.

    Raises:
        IntegrityError: they are not; the message says why.
    """
    size = parse_header(content, name).segment_size
    segment = parse_segment_name(name, size)
    check_header(content, segment, system_identifier, name)
    if len(content) != size:
        raise wal_damaged(f"{name} is {len(content)} bytes; a segment of this cluster has {size}")
    return segment


def read_history(store: ObjectStore, system_identifier: str, timeline: int) -> tuple[TimelineSwitch, ...]:
    """The ancestors of a timeline, oldest first, each with the LSN where it was left. Empty for timeline 1.

    Raises:
        ObjectMissingError: the archive has no history of it.
        IntegrityError: it is damaged.
    """
    if timeline == FIRST_TIMELINE:
        return ()
    content, _ = load(store, system_identifier, history_name(timeline))
    return parse_history(content.decode(errors="replace"), timeline)
