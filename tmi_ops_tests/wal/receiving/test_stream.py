"""Receiving WAL while nothing goes wrong: what arrives, when the server is told, and how the next one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.lease import read_lease
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops.wal.slot import read_server
from tmi_ops_tests.wal.receiving.receivers import (
    archive_of,
    assert_equal_to_pg_wal,
    flushed,
    reaches,
    receiving,
    until,
    write_wal,
)


@pytest.mark.slow
def test_a_catch_up_brings_the_archive_to_where_the_server_stood_and_the_next_one_goes_on_from_there(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path
) -> None:
    first = catch_up_wal(source, store, SilentReport(), StreamOptions(slot="catch_up"))
    assert first is not None
    write_wal(source.postgres, 20)
    here = flushed(source.postgres)
    second = catch_up_wal(source, store, SilentReport(), StreamOptions(slot="catch_up"))
    assert second is not None
    assert parse_lsn(second.lsn) >= here
    assert reaches(store, here)
    assert second.segments >= 1
    assert_equal_to_pg_wal(store, cluster, tmp_path)


@pytest.mark.slow
def test_the_stream_keeps_the_archive_level_with_the_server_and_the_slot_follows_the_archive(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path
) -> None:
    with receiving(source, slot="stream") as receiver:
        write_wal(source.postgres, 40)
        here = flushed(source.postgres)
        until(lambda: reaches(store, here), "the archive reaches the server")
        assert receiver.error is None
        slot = read_server(source.postgres, "stream").slot
        assert slot is not None
        assert slot.active
    assert receiver.result is not None
    assert parse_lsn(receiver.result.lsn) >= here
    after = read_server(source.postgres, "stream").slot
    assert after is not None
    assert after.restart_lsn is not None
    assert after.restart_lsn <= parse_lsn(receiver.result.lsn)
    assert_equal_to_pg_wal(store, cluster, tmp_path)
    archive = archive_of(store)
    assert all(len(partials) <= 1 for partials in archive.partials.values())
    found = read_lease(store, archive.system_identifier)
    assert found is not None
    assert found[0].ended
    assert found[0].level_at is not None
