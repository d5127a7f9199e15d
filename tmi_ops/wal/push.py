"""Stores a WAL file given by archive_command, or by a person who has found one that the archive lacks.

PostgreSQL requires that an archive_command succeeds only when the file is durably stored, succeeds again for the same
file, and never overwrites a different file of the same name.

Source: PostgreSQL's documentation, "Continuous Archiving", Setting Up WAL Archiving.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from tmi_ops.errors import ObjectExistsError, OpsError
from tmi_ops.postgres.wal_files import (
    HISTORY_NAME,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    Segment,
    parse_header,
    parse_history,
)
from tmi_ops.store.backend import IfAbsent
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import look, sealed
from tmi_ops.store.stamped import put_stamped
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.fetching import check_content
from tmi_ops.wal.index import reopen
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import continues, links_of
from tmi_ops.wal.partials import SO_FAR, find_open, load_open
from tmi_ops.wal.pieces import piece_name
from tmi_ops.wal.records import ArchiveRecords, update_records
from tmi_ops.wal.segments import CheckedSegment, check_segment, look_at_segment, put_segment, require_same_beginning
from tmi_ops.wal.stored_file import FileFacts, WalConflictError, compressed, conflict, store_once

CONTROL_FILE = Path("global/pg_control")


@dataclass(frozen=True)
class PushedFile:
    """The file that was stored. `new`: the archive did not have it yet."""

    name: str
    system_identifier: str
    new: bool


def push_wal_file(store: ObjectStore, path: Path, system_identifier: str | None = None) -> PushedFile:
    """Store one file of a server's pg_wal: a segment, `.partial`, `.history` or `.backup`.

    Args:
        system_identifier: the cluster's, needed if neither the file nor its directory tells it.

    Raises:
        WalConflictError: the archive has different WAL under this name, or the file does not fit its neighbours there;
            the archive was left as it is.
        IntegrityError: the file is not the WAL that its name says.
        OpsError: it is not a WAL file, cannot be read, or its cluster is not known.
        StoreError: the store failed.
    """
    name = path.name
    file_key("0", name)  # refuses anything but a WAL file before it is read
    content = _read(path)
    if not SEGMENT_NAME.fullmatch(name.removesuffix(PARTIAL_SUFFIX)):
        cluster = system_identifier or cluster_beside(path)
        if HISTORY_NAME.fullmatch(name):
            parse_history(content.decode(errors="replace"), int(name[:8], 16))
        return PushedFile(name, cluster, store_once(store, cluster, name, content, None))
    header = parse_header(content, name)
    cluster = system_identifier or header.system_identifier
    segment = check_content(content, name.removesuffix(PARTIAL_SUFFIX), cluster)
    if name.endswith(PARTIAL_SUFFIX):
        describe_archive(store, cluster, segment.size)
        return PushedFile(name, cluster, _store_partial(store, cluster, segment, content, _left_at(path, segment)))
    return PushedFile(name, cluster, _store_whole(store, cluster, segment, content))


def _store_whole(store: ObjectStore, cluster: str, segment: Segment, content: bytes) -> bool:
    """Store a whole segment and return whether it is new. Makes few requests, because it runs for every segment."""
    try:
        checked, fills_a_hole = _checked_between_neighbours(store, cluster, segment, content)
    except WalConflictError:
        if look(store, file_key(cluster, segment.name)) is None:
            raise
        return store_once(store, cluster, segment.name, content, segment.end)  # compared with the archived one
    if checked.breaks:
        update_records(store, cluster, lambda records: reduce(ArchiveRecords.with_break, checked.breaks, records))
    new = put_segment(store, cluster, content, checked)
    if fills_a_hole:
        reopen(store, cluster, segment)
    return new


def _checked_between_neighbours(
    store: ObjectStore, cluster: str, segment: Segment, content: bytes
) -> tuple[CheckedSegment, bool]:
    """Check a segment against its neighbours on its timeline and against its partial, whose bytes it must begin with.
    Also return whether the next segment is archived."""
    before = (
        look_at_segment(store, cluster, Segment(segment.timeline, segment.start - segment.size, segment.size))
        if segment.start
        else None
    )
    if before is None:
        describe_archive(store, cluster, segment.size)
    after = look(store, file_key(cluster, segment.next.name))
    checked = check_segment(cluster, segment, content, before, levels=True)
    if after is not None and continues(checked.as_neighbour.links, links_of(after.metadata)) is False:
        raise conflict(segment.next.name)
    require_same_beginning(store, cluster, segment, content)
    return checked, after is not None


def cluster_beside(path: Path) -> str:
    """The system identifier of the data directory whose pg_wal has this file.

    Raises:
        OpsError: its control file cannot be read.
    """
    control = path.absolute().parent.parent / CONTROL_FILE
    try:
        with control.open("rb") as file:
            return str(struct.unpack("=Q", file.read(8))[0])  # the control file's first field, since 8.0
    except (OSError, struct.error):
        raise OpsError(
            f"{path.name} does not name its cluster, and there is no {CONTROL_FILE} next to its directory.",
            hint="give --cluster SYSTEM_IDENTIFIER, which `pg_controldata` shows",
        ) from None


def _left_at(path: Path, segment: Segment) -> int:
    """The LSN where a timeline's last, unfinished segment ends, from the history of the next timeline.

    The segment's start if no history has it: all of the segment is then stored, but none of it is reported as archived.
    """
    for history in sorted(path.parent.glob("*.history")):
        if not HISTORY_NAME.fullmatch(history.name):
            continue
        for switch in parse_history(_read(history).decode(errors="replace"), int(history.name[:8], 16)):
            if switch.timeline == segment.timeline and segment.start <= switch.lsn <= segment.end:
                return switch.lsn
    return segment.start


def _store_partial(store: ObjectStore, cluster: str, segment: Segment, content: bytes, end: int) -> bool:
    """Store a partial unless the archive already has as much. Return whether it was stored."""
    if look(store, file_key(cluster, segment.name)) is not None:
        return False
    found = find_open(store, cluster, segment)
    if found is not None and found.end_lsn >= end:
        held, _ = load_open(store, cluster, segment.name)
        if held[: end - segment.start] != content[: end - segment.start]:
            raise conflict(f"{segment.name}{PARTIAL_SUFFIX}")
        return False
    # If its end is not known, all of it is stored and none of it is reported as archived.
    known = end - segment.start if end > segment.start else None
    plain = content[:known]
    sha256 = hashlib.sha256(plain).hexdigest()
    metadata = FileFacts(len(plain), sha256, end).metadata() | ({} if known is None else {SO_FAR: sha256})
    name = f"{segment.name}{PARTIAL_SUFFIX}" if known is None else piece_name(segment, 0, known)
    body = sealed(store, compressed(plain))
    try:
        put_stamped(store, file_key(cluster, name), body, metadata, IfAbsent(), "WAL")
    except ObjectExistsError:
        # A receiver wrote it at the same time: start again from what it stored.
        return _store_partial(store, cluster, segment, content, end)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OpsError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="give the path as PostgreSQL passes it (%p), relative to the data directory, and run as a "
            "user who can read it",
        ) from None
