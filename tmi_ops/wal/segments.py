"""Stores a whole segment, only if it continues what is archived.

The receiver and `wal push` both use this, so that both refuse a segment of another history in the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment, check_header, format_lsn
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import look
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links, continues, links_from, links_of
from tmi_ops.wal.partials import find_open, load_open
from tmi_ops.wal.stored_file import OWN_TIMELINE, WalConflictError, conflict, facts_of, load, store_once


@dataclass(frozen=True)
class Neighbour:
    """An adjacent segment: its links, and the SHA-256 of its uncompressed bytes (None: not known)."""

    segment: Segment
    links: Links
    sha256: str | None


@dataclass(frozen=True)
class CheckedSegment:
    """A segment that may be stored. `breaks`: the points in it that no replay can pass."""

    as_neighbour: Neighbour
    breaks: tuple[Break, ...]


def look_at_segment(store: ObjectStore, system_identifier: str, segment: Segment) -> Neighbour | None:
    """Read the links of a whole archived segment from its metadata, or from its content if the metadata has none.

    Returns:
        None if the segment is not archived.

    Raises:
        StoreError: the store failed.
    """
    head = look(store, file_key(system_identifier, segment.name))
    if head is None:
        return None
    links, sha256 = links_of(head.metadata), facts_of(head).sha256
    if links.last is None and links.first is None:
        try:
            content, _ = load(store, system_identifier, segment.name)
        except OpsError as error:
            if error.transient:
                raise
            return Neighbour(segment, links, sha256)  # damaged, or encrypted without the key at hand
        links = links_from(read_records(content, levels=False), levels_read=False)
    return Neighbour(segment, links, sha256)


def check_segment(
    system_identifier: str,
    segment: Segment,
    content: bytes | bytearray,
    before: Neighbour | None,
    *,
    levels: bool,
    may_break: bool = False,
) -> CheckedSegment:
    """Check that a whole segment is what its name says, and that it continues the one before it.

    Args:
        before: the segment before it on its line. None: there is none, or it is not known.
        levels: whether to look for changes of wal_level.
        may_break: it need not continue `before`. If it does not, the result has a break.

    Raises:
        IntegrityError: the bytes are not that segment.
        WalConflictError: it does not continue `before`.
    """
    check_header(content, segment, system_identifier, segment.name)
    own = links_from(
        read_records(content, levels=levels), levels_read=levels, chain=None if before is None else before.sha256
    )
    breaks = minimal_breaks(segment, own)
    if before is not None and continues(before.links, own) is False:
        if not may_break:
            raise _does_not_continue(segment, before, own)
        breaks.append(Break(segment.timeline, segment.start, "unlinked"))
    links = own.after(None if before is None else before.links)
    return CheckedSegment(Neighbour(segment, links, hashlib.sha256(content).hexdigest()), tuple(sorted(breaks)))


def minimal_breaks(segment: Segment, links: Links) -> list[Break]:
    """The breaks where the server was restarted with wal_level = minimal. Empty if the changes of it are not known."""
    return [Break(segment.timeline, item.lsn, "minimal") for item in links.levels or () if item.level == "minimal"]


def put_segment(
    store: ObjectStore, system_identifier: str, content: bytes | bytearray, checked: CheckedSegment
) -> bool:
    """Store a segment with its links in the object's metadata. May be repeated with the same bytes.

    Returns:
        Whether it was new to the archive.

    Raises:
        WalConflictError: the archive has different bytes under its name; they were left as they are.
        StoreError: the store failed.
    """
    segment, links, sha256 = checked.as_neighbour.segment, checked.as_neighbour.links, checked.as_neighbour.sha256
    return store_once(store, system_identifier, segment.name, content, segment.end, links.metadata(), sha256)


def require_same_beginning(
    store: ObjectStore, system_identifier: str, segment: Segment, content: bytes | bytearray
) -> None:
    """Check that a whole segment begins with the bytes of its partial, if the archive has one.

    Raises:
        WalConflictError: it does not: the commits in the partial would be lost.
        StoreError: the store failed.
    """
    found = find_open(store, system_identifier, segment)
    if found is None or not found.filled:
        return
    same = found.is_beginning_of(content)
    if same is None:
        held, _ = load_open(store, system_identifier, segment.name)
        same = held[: found.filled] == content[: found.filled]
    if not same:
        raise conflict(f"{segment.name}{PARTIAL_SUFFIX}")


def _does_not_continue(segment: Segment, before: Neighbour, links: Links) -> WalConflictError:
    """The error for WAL of another history, which continues the archive by its name only."""
    named = "no record" if not links.prev else f"the record at {format_lsn(links.prev)}"
    last = "unknown" if before.links.last is None else format_lsn(before.links.last)
    return WalConflictError(
        f"{segment.name} does not continue {before.segment.name} in the archive: its first record follows {named}, but "
        f"the last record of {before.segment.name} is at {last}. The server's files were returned to an earlier state, "
        "pg_resetwal was run, or this is another server's WAL.",
        detail="It was not archived. The archive is intact.",
        hint=f"if the files were returned to an earlier state: {OWN_TIMELINE}. If pg_resetwal was run: `tmi-ops backup "
        f"base`, then `tmi-ops wal stream --accept-gap`; moments up to {format_lsn(segment.start)} stay recoverable",
        code=Code.WAL_DISCONTINUOUS,
    )
