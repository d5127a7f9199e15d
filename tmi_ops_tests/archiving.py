"""WAL of a test's cluster put into the archive by the shortest way: from its pg_wal, file by file."""

from __future__ import annotations

import hashlib

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import HISTORY_NAME, SEGMENT_NAME, Segment, parse_lsn, parse_segment_name
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import sealed
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.partials import SO_FAR, find_open
from tmi_ops.wal.pieces import piece_name
from tmi_ops.wal.stored_file import FileFacts, compressed, store_once

_PLACE = """
SELECT pg_current_wal_flush_lsn()::text, pg_walfile_name(pg_current_wal_flush_lsn()),
       (SELECT system_identifier::text FROM pg_control_system()), (SELECT bytes_per_wal_segment FROM pg_control_init())
"""


def archive_wal(cluster: RunningCluster, store: ObjectStore, *, close_segment: bool = True) -> int:
    """Archive all that the cluster has written on its timeline, and its histories.

    Args:
        close_segment: have the server end its open segment first; otherwise that is archived as `.partial`.

    Returns:
        The LSN up to which there is WAL.
    """
    with connect(cluster.address) as connection:
        connection.execute("SET synchronous_commit = on")
        connection.execute("SELECT pg_logical_emit_message(true, 'tmi_ops', 'flush')")
        if close_segment:
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("SELECT pg_logical_emit_message(true, 'tmi_ops', 'flush')")
        row = connection.execute(_PLACE).fetchone()
    assert row is not None
    lsn, open_name, system_identifier, size = row
    end = parse_lsn(lsn)
    open_segment = parse_segment_name(open_name, size)
    describe_archive(store, system_identifier, size)
    for path in sorted((cluster.directory / "pg_wal").iterdir()):
        if HISTORY_NAME.fullmatch(path.name):
            store_once(store, system_identifier, path.name, path.read_bytes(), None)
        elif SEGMENT_NAME.fullmatch(path.name):
            segment = parse_segment_name(path.name, size)
            if segment.timeline == open_segment.timeline and segment.end <= end:
                store_once(store, system_identifier, path.name, path.read_bytes(), segment.end)
    if close_segment:
        return open_segment.start
    content = (cluster.directory / "pg_wal" / open_name).read_bytes()[: end - open_segment.start]
    archive_open(store, system_identifier, open_segment, content)
    return end


def archive_open(store: ObjectStore, system_identifier: str, segment: Segment, content: bytes) -> None:
    """Add to an open segment of the archive what it lacks of `content`, as a receiver does."""
    found = find_open(store, system_identifier, segment)
    start = 0 if found is None else found.filled
    for end in (len(content),) if start else (len(content) // 2, len(content)):
        plain, start = content[start:end], end
        if not plain:
            continue
        facts = FileFacts(len(plain), hashlib.sha256(plain).hexdigest(), segment.start + end)
        metadata = {**facts.metadata(), SO_FAR: hashlib.sha256(content[:end]).hexdigest()}
        key = file_key(system_identifier, piece_name(segment, end - len(plain)))
        store.put(key, sealed(store, compressed(plain)), metadata)
