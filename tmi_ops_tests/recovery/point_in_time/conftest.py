"""A cluster with base backups, archived WAL, and points in time whose content is known."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, make_noise_table, physical_cluster, settings_for

RESTORE_POINT = "before the accident"
PLAIN_ROLE = "watcher"
# Commits on either side of a moment are at least so far from it.
APART_S = 0.02
ROOM = 2 << 30
# These tests archive WAL from the server's own files, which a checkpoint may remove before.
KEEPS_WAL = {"wal_keep_size": "512MB"}


@dataclass(frozen=True)
class Moment:
    """A time and an LSN, and the number of rows in the ledger at that point."""

    time: datetime
    lsn: int
    rows: int


@dataclass(frozen=True)
class Past:
    """What was done to a cluster, in this order: `full`, moment `early`, `incremental`, moments `middle` and `late`
    with the restore point between them, `second_incremental`, moment `last`; then the WAL was archived up to `end`, the
    last segment as it stood open."""

    cluster: RunningCluster
    settings: Settings
    store: ObjectStore
    full: BaseManifest
    early: Moment
    incremental: BaseManifest
    middle: Moment
    late: Moment
    second_incremental: BaseManifest
    last: Moment
    end: int

    def chain(self, *backups: BaseManifest) -> tuple[BaseManifest, ...]:
        """What a restore from the last of these takes: all of them, or it alone where every backup is full."""
        return backups if self.takes_increments else backups[-1:]

    @property
    def takes_increments(self) -> bool:
        """Servers before 17 do not: what is called incremental here is full then."""
        return self.incremental.server_version_num // 10000 >= FIRST_TO_SUMMARIZE

    @property
    def system_identifier(self) -> str:
        return self.full.system_identifier


def write(postgres: PostgresSettings, rows: int = 3) -> Moment:
    """Add rows to the ledger, each in a transaction, and tell the moment after them."""
    with connect(postgres) as connection:
        connection.execute("SET synchronous_commit = on")
        for _ in range(rows):
            connection.execute("INSERT INTO ledger DEFAULT VALUES")
        time.sleep(APART_S)
        row = connection.execute(
            "SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text, (SELECT count(*) FROM ledger)"
        ).fetchone()
        time.sleep(APART_S)
    assert row is not None
    return Moment(row[0], parse_lsn(row[1]), row[2])


def make_ledger(postgres: PostgresSettings) -> None:
    with connect(postgres) as connection:
        connection.execute(
            "CREATE TABLE ledger (i bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz "
            "DEFAULT clock_timestamp())"
        )


def own_store(s3: StoreSettings, bucket: str) -> StoreSettings:
    return s3.model_copy(update={"bucket": bucket, "prefix": f"pitr-{secrets.token_hex(6)}"})


@pytest.fixture(scope="session")
def past(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Past]:
    root = tmp_path_factory.mktemp("past")
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        settings = settings_for(cluster.address, own_store(s3, shared_bucket), root / "home")
        store = open_store(settings.store, settings.environment)
        make_ledger(cluster.address)
        make_noise_table(cluster.address, "noise", rows=3000)
        with connect(cluster.address) as connection:
            connection.execute(f"CREATE ROLE {PLAIN_ROLE} LOGIN")
        full = back_up_base(settings, store, SilentReport())
        early = write(cluster.address)
        incremental = back_up_base(settings, store, SilentReport(), incremental=True)
        middle = write(cluster.address)
        with connect(cluster.address) as connection:
            connection.execute("SELECT pg_create_restore_point(%s)", [RESTORE_POINT])
        late = write(cluster.address)
        archive_wal(cluster, store)
        second = back_up_base(settings, store, SilentReport(), incremental=True)
        last = write(cluster.address)
        write(cluster.address, rows=1)
        end = archive_wal(cluster, store, close_segment=False)
        past = Past(cluster, settings, store, full, early, incremental, middle, late, second, last, end)
        later = "incremental" if past.takes_increments else "full"
        assert (full.format, incremental.format, second.format) == ("full", later, later)
        yield past


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a cluster may be recovered to; an unprivileged server reaches it.

    In memory where there is room: a cluster is a thousand files, and making them costs most of a small restore.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made there
    if not memory.is_dir() or shutil.disk_usage(memory).free < ROOM:
        memory = tmp_path
    root = Path(tempfile.mkdtemp(prefix="tmi-ops-tests-", dir=memory))
    root.chmod(0o755)
    let_everybody_enter(tmp_path)
    yield root / "recovered"
    shutil.rmtree(root, ignore_errors=True)
