"""A server whose WAL segments are not of the usual size: received, backed up and restored as any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.cluster import start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.server import run_as
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.physical import PHYSICAL_PARAMETERS, physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.restoring import restore, started, value
from tmi_ops_tests.wal.receiving.receivers import archive_of, assert_equal_to_pg_wal, flushed, write_wal

pytestmark = pytest.mark.slow

# A server wants room for two segments at least.
ROOM = {"min_wal_size": "160MB", "max_wal_size": "1GB"}


@pytest.mark.parametrize("megabytes", [1, 64])
def test_segments_of_another_size_are_archived_and_replayed(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path, megabytes: int
) -> None:
    with physical_cluster(programs, tmp_path / "server", ROOM) as made:
        made.stop()
        data = made.directory
        identity = server_identity(programs.path("postgres"), data.parent)
        run_as(identity, [programs.path("pg_resetwal"), f"--wal-segsize={megabytes}", "--pgdata", data])
        parameters = {**PHYSICAL_PARAMETERS, **ROOM}
        cluster = start_cluster(
            programs, data, identity, made.address, parameters=parameters, log=data.parent / "again.log"
        )
        try:
            settings = settings_for(cluster.address, store_settings, tmp_path / "home")
            store = open_store(settings.store, settings.environment)
            catch_up_wal(settings, store, SilentReport(), StreamOptions())
            manifest = back_up_base(settings, store, SilentReport())
            write_wal(cluster.address, 5)
            with connect(cluster.address) as connection:
                connection.execute("CREATE TABLE written AS SELECT generate_series(1, 1000) AS n")
            flushed(cluster.address)
            catch_up_wal(settings, store, SilentReport(), StreamOptions())
            assert manifest.wal_segment_size == archive_of(store).segment_size == megabytes << 20
            assert_equal_to_pg_wal(store, cluster, tmp_path)
        finally:
            cluster.stop()
        restore(settings, Target(), tmp_path / "recovered")
    with started(tmp_path / "recovered", settings.postgres, ROOM) as recovered:
        assert value(recovered.address, "SELECT count(*) FROM written") == 1000
