"""A whole segment on its way into the archive: stored only where it continues what lies there.

Who receives and who pushes ask here, so that a segment of another history is refused in the same way by both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment, check_header, format_lsn
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import look
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links, continues, links_from, links_of
from tmi_ops.wal.partials import find_open, load_open
from tmi_ops.wal.stored_file import OWN_TIMELINE, WalConflictError, conflict, facts_of, load, store_once


@dataclass(frozen=True)
class Neighbour:
    """A segment that is in the archive: how it ends or begins, and the SHA-256 of its plain bytes (None: not known)."""

    segment: Segment
    links: Links
    sha256: str | None


@dataclass(frozen=True)
class CheckedSegment:
    """A segment that may be stored. `breaks`: the places in it that no replay passes."""

    as_neighbour: Neighbour
    breaks: tuple[Break, ...]


def look_at_segment(store: ObjectStore, system_identifier: str, segment: Segment) -> Neighbour | None:
    """A whole segment of the archive by its metadata; by its content where the metadata says nothing of its records.

    Returns:
        None where it is not there.

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
            return Neighbour(segment, links, sha256)  # encrypted, and the key is not here; or damaged
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
    """See that a whole segment is what its name says, and continues the one before it.

    Args:
        before: the segment before it on its line; None: there is none, or it is not known.
        levels: whether to look for changes of wal_level.
        may_break: it need not continue `before`; a break is told then.

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
    """Where the server was restarted with wal_level = minimal, of a segment whose changes of it are known."""
    return [Break(segment.timeline, item.lsn, "minimal") for item in links.levels or () if item.level == "minimal"]


def put_segment(
    store: ObjectStore, system_identifier: str, content: bytes | bytearray, checked: CheckedSegment
) -> bool:
    """Store a segment, with what its records say in the object's metadata. May be repeated with the same bytes.

    Returns:
        Whether it was new to the archive.

    Raises:
        WalConflictError: the archive holds other bytes under its name; they were left as they are.
        StoreError: the store failed.
    """
    segment, links, sha256 = checked.as_neighbour.segment, checked.as_neighbour.links, checked.as_neighbour.sha256
    return store_once(store, system_identifier, segment.name, content, segment.end, links.metadata(), sha256)


def require_same_beginning(
    store: ObjectStore, system_identifier: str, segment: Segment, content: bytes | bytearray
) -> None:
    """See that a whole segment begins with what the archive's `.partial` of it holds, where there is one.

    Raises:
        WalConflictError: it begins otherwise: the archived commits of that one would be lost.
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
    """The error for WAL of another history that follows by its name alone."""
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
