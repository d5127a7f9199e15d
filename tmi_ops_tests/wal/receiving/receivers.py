"""What the tests of receiving do and look at: load, receivers in threads, and the archive beside pg_wal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.archive import WalArchive, list_clusters, list_wal
from tmi_ops.wal.coverage import Hole, coverage
from tmi_ops.wal.fetching import fetch_wal_file
from tmi_ops.wal.lineage import Lineage, Stretch
from tmi_ops.wal.receiver import ReceivedWal, StreamOptions, stream_wal
from tmi_ops_tests.physical import Notes

PATIENCE_S = 60.0


@dataclass
class Receiver:
    """`stream_wal` in a thread. `notes` is what it said; `error` what it died of."""

    settings: Settings
    options: StreamOptions
    stop: threading.Event = field(default_factory=threading.Event)
    notes: Notes = field(default_factory=Notes)
    result: ReceivedWal | None = None
    error: Exception | None = None

    def run(self) -> None:
        store = open_store(self.settings.store, self.settings.environment)
        try:
            self.result = stream_wal(self.settings, store, self.notes, self.options, self.stop)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error


@contextmanager
def receiving(settings: Settings, *, slot: str, partial_every: float = 0.2, wait: bool = False) -> Iterator[Receiver]:
    """A receiver at work for the length of a `with` block; it is stopped cleanly at its end."""
    receiver = Receiver(settings, StreamOptions(slot=slot, partial_every=partial_every, wait=wait))
    thread = threading.Thread(target=receiver.run)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def flushed(postgres: PostgresSettings) -> int:
    """Write a record, have it flushed, and say up to where WAL is flushed."""
    with connect(postgres) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute("SELECT pg_logical_emit_message(true, 'tmi_ops', 'flush')")
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(row[0])


def write_wal(postgres: PostgresSettings, megabytes: int) -> None:
    """WAL that does not compress."""
    with connect(postgres) as connection:
        connection.execute("SET synchronous_commit = local")
        for _ in range(megabytes):
            connection.execute(
                "SELECT pg_logical_emit_message(true, 'tmi_ops', string_agg(md5(random()::text), '')) "
                "FROM generate_series(1, 32768)"
            )


def archive_of(store: ObjectStore) -> WalArchive:
    """The one cluster's archive."""
    (system_identifier,) = list_clusters(store)
    return list_wal(store, system_identifier)


def reaches(store: ObjectStore, lsn: int, timeline: int = 1) -> bool:
    """Whether the archive holds this timeline without a hole from its first segment to `lsn`."""
    if not list_clusters(store):
        return False
    archive = archive_of(store)
    newest = archive.newest_lsn(timeline)
    return newest is not None and newest >= lsn and all(hole.start >= lsn for hole in holes(archive, timeline))


def holes(archive: WalArchive, timeline: int) -> tuple[Hole, ...]:
    """Those between the first and the last that is archived of a timeline."""
    kept = [*archive.segments.get(timeline, ()), *archive.partials.get(timeline, ())]
    begin = min((item.segment.start for item in kept), default=0)
    return coverage(archive, Lineage((Stretch(timeline, begin, None),))).holes(begin)


def assert_equal_to_pg_wal(store: ObjectStore, cluster: RunningCluster, directory: Path) -> None:
    """Every archived byte is the byte the server has at its place."""
    archive, compared = archive_of(store), 0
    whole = [(item.name, item.segment, item.segment.end) for group in archive.segments.values() for item in group]
    opened = [(item.name, item.segment, item.end_lsn) for group in archive.partials.values() for item in group]
    for name, segment, end in (*whole, *opened):
        original = cluster.directory / "pg_wal" / segment.name
        if not original.exists():
            continue
        fetched = directory / name
        assert fetch_wal_file(store, archive.system_identifier, name, fetched)
        content, valid = fetched.read_bytes(), end - segment.start
        assert content[:valid] == original.read_bytes()[:valid], name
        assert not any(content[valid:]), name
        compared += 1
    assert compared
