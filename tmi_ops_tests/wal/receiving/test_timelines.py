"""Changes of timeline while WAL is received: a standby takes over; a restored cluster lives on in the same store."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.cluster import RunningCluster, free_port, start_cluster
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.physical import PHYSICAL_PARAMETERS, kill, physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.restoring import restore, started
from tmi_ops_tests.tcp_relay import tcp_relay
from tmi_ops_tests.wal.receiving.receivers import archive_of, flushed, reaches, receiving, until, write_wal

pytestmark = pytest.mark.slow


@contextmanager
def standby_of(primary: RunningCluster, programs: Programs, root: Path) -> Iterator[RunningCluster]:
    """A streaming standby, as pg_basebackup -R makes one."""
    data, address = root / "standby", primary.address.model_copy(update={"port": free_port()})
    identity = server_identity(programs.path("postgres"), root)
    subprocess.run(
        [programs.path("pg_basebackup"), "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"],
        env={**_short(libpq_environment(primary.address)), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    for path in (data, *data.rglob("*")):
        identity.take_over(path)
    standby = start_cluster(programs, data, identity, address, parameters=PHYSICAL_PARAMETERS, log=root / "standby.log")
    try:
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(data)


def rows(postgres: PostgresSettings) -> int:
    with connect(postgres) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


def insert(postgres: PostgresSettings, count: int) -> None:
    with connect(postgres) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(f"INSERT INTO ledger SELECT generate_series(1, {count})")


def test_a_standby_that_takes_over_is_followed_onto_its_timeline_and_a_restore_has_the_rows_of_both(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with (
        physical_cluster(programs, tmp_path / "primary") as primary,
        standby_of(primary, programs, tmp_path) as standby,
        tcp_relay(primary.address.port) as network,
    ):
        settings = settings_for(primary.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        with connect(primary.address) as connection:
            connection.execute("CREATE TABLE ledger (n int)")
        insert(primary.address, 10)
        here = settings.model_copy(update={"postgres": primary.address.model_copy(update={"port": network.port})})
        with receiving(here, slot="failover") as receiver:
            back_up_base(settings, store, SilentReport())
            insert(primary.address, 5)
            write_wal(primary.address, 20)
            before = flushed(primary.address)
            until(lambda: reaches(store, before), "it receives from the primary")
            until(lambda: _replayed(standby.address) >= before, "the standby is level")
            kill(primary)
            with connect(standby.address) as connection:
                connection.execute("SELECT pg_promote()")
            network.redirect(standby.address.port)
            insert(standby.address, 7)
            write_wal(standby.address, 20)
            after = flushed(standby.address)
            until(lambda: reaches(store, after, timeline=2), "it follows the new primary")
        assert receiver.error is None
        assert archive_of(store).histories == (2,)
        restore(settings, Target(), tmp_path / "latest")
        with started(tmp_path / "latest", primary.address) as cluster:
            assert rows(cluster.address) == 22


def test_a_restored_cluster_is_streamed_into_the_same_store_and_restored_again_three_times_over(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "first") as first:
        settings = settings_for(first.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        with connect(first.address) as connection:
            connection.execute("CREATE TABLE ledger (n int)")
        back_up_base(settings, store, SilentReport())
        insert(first.address, 1)
        catch_up_wal(settings, store, SilentReport(), StreamOptions())
    expected = 1
    for life in (2, 3, 4):
        directory = tmp_path / f"life-{life}"
        restore(settings, Target(), directory)
        with started(directory, settings.postgres) as cluster:
            assert rows(cluster.address) == expected
            insert(cluster.address, life)
            expected += life
            here = settings.model_copy(update={"postgres": cluster.address})
            received = catch_up_wal(here, store, SilentReport(), StreamOptions())
        assert received is not None
        assert received.timeline == life
    directory = tmp_path / "last"
    restore(settings, Target(), directory)
    with started(directory, settings.postgres) as cluster:
        assert rows(cluster.address) == expected == 1 + 2 + 3 + 4
    assert archive_of(store).histories == (2, 3, 4)


def _short(environment: dict[str, str]) -> dict[str, str]:
    """-R writes what it connected with as primary_conninfo, and a server cuts that off after 1,023 bytes."""
    return {name: value for name, value in environment.items() if name != "PGOPTIONS"}


def _replayed(standby: PostgresSettings) -> int:
    with connect(standby) as connection:
        row = connection.execute("SELECT pg_last_wal_replay_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(row[0])
