"""A TMI database with heartbeats, a base backup and a restore point with fingerprints, all archived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.restore_point import create_restore_point
from tmi_ops.drill.chain import HeartbeatRow
from tmi_ops.drill.heartbeat import beat
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.restore_points import RestorePoint
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.physical import physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.conftest import KEEPS_WAL

NAME = "before the release"


@dataclass(frozen=True)
class Lived:
    """Heartbeats 1 and 2, `base`, heartbeat 3, a restore point, heartbeat 4 and more, all archived by `archived_at`."""

    cluster: RunningCluster
    settings: Settings
    store: ObjectStore
    base: BaseManifest
    beats: tuple[HeartbeatRow, ...]
    point: RestorePoint
    archived_at: datetime


@contextmanager
def a_life(root: Path, programs: Programs, store_settings: StoreSettings) -> Iterator[Lived]:
    """Have it lived below `root`, and the cluster running for the length of a `with` block."""
    let_everybody_enter(root)
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        settings = settings_for(cluster.address, store_settings, root / "home")
        store = open_store(settings.store, settings.environment)
        report = SilentReport()
        migrate(cluster.address, report)
        with connect(cluster.address) as connection:
            connection.execute("CREATE TABLE journal AS SELECT i, md5(i::text) AS note FROM generate_series(1, 5000) i")
            connection.execute("ALTER TABLE journal ADD PRIMARY KEY (i)")
            connection.execute("CREATE UNLOGGED TABLE scratchpad AS SELECT generate_series(1, 10) AS i")
        first, second = beat(cluster.address), beat(cluster.address)
        base = back_up_base(settings, store, report)
        third = beat(cluster.address)
        point = create_restore_point(settings, store, NAME, report)
        fourth = beat(cluster.address)
        with connect(cluster.address) as connection:
            connection.execute("SET synchronous_commit = on")
            connection.execute("INSERT INTO journal SELECT i, 'later' FROM generate_series(5001, 6000) i")
        archive_wal(cluster, store, close_segment=False)
        yield Lived(cluster, settings, store, base, (first, second, third, fourth), point, datetime.now(UTC))


def left_behind(settings: Settings) -> list[Path]:
    """Directories in the scratch area."""
    scratch = settings.home / "scratch"
    return [path for path in scratch.iterdir() if path.is_dir()] if scratch.is_dir() else []
