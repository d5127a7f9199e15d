"""synchronous_standby_names = 'tmi_ops': a commit is acknowledged once its WAL lies in the store."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.slot import read_server
from tmi_ops_tests.physical import kill, physical_cluster, set_parameter, settings_for
from tmi_ops_tests.recovery.point_in_time.restoring import restore, started
from tmi_ops_tests.wal.receiving.receivers import flushed, reaches, receiving, until

pytestmark = pytest.mark.slow
WRITERS = 4
ENOUGH = 120
# Scratch clusters do without.
DURABLE = {"synchronous_commit": "on"}


WITHOUT_A_RECEIVER_S = 0.3
# https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
NAMINGS = ("tmi_ops", "*", 'ANY 1 (elsewhere, "TMI_ops")', "FIRST 1 (elsewhere, tmi_ops)")


class Commit:
    """One that is being waited for. `done`: it was acknowledged; its WAL ends at or before `lsn`."""

    def __init__(self, postgres: PostgresSettings) -> None:
        self.done, self.lsn = threading.Event(), 0
        self._thread = threading.Thread(target=self._run, args=(postgres,))
        self._thread.start()

    def _run(self, postgres: PostgresSettings) -> None:
        with connect(postgres) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'tmi_ops', 'commit')")
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        self.lsn = parse_lsn(row[0]) if row else 0
        self.done.set()

    def join(self) -> None:
        self._thread.join()


class Writers:
    """Sessions that insert and remember which commits were acknowledged."""

    def __init__(self, postgres: PostgresSettings) -> None:
        self._postgres = postgres
        self.acknowledged: set[int] = set()
        self._threads = [threading.Thread(target=self._write, args=(writer,)) for writer in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, writer: int) -> None:
        with suppress(DatabaseError), connect(self._postgres) as connection:
            for turn in range(1_000_000):
                number = turn * WRITERS + writer
                connection.execute("INSERT INTO ledger VALUES (%s)", [number])
                self.acknowledged.add(number)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_with_synchronous_commit_to_the_store_a_server_killed_under_load_loses_no_acknowledged_commit(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server", DURABLE) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        with connect(cluster.address) as connection:
            connection.execute("CREATE TABLE ledger (n int PRIMARY KEY)")
        back_up_base(settings, store, SilentReport())
        set_parameter(cluster.address, "synchronous_standby_names", "'tmi_ops'")
        # So long that only the synchronous mode can be what stores the open segment.
        with receiving(settings, slot="synchronous", partial_every=3600) as receiver:
            here = flushed(cluster.address)
            until(lambda: reaches(store, here), "it receives")
            writers = Writers(cluster.address)
            until(lambda: len(writers.acknowledged) >= ENOUGH, "commits are acknowledged")
            kill(cluster)
            writers.join()
        assert receiver.error is None
    restore(settings, Target(), tmp_path / "recovered")
    with started(tmp_path / "recovered", cluster.address) as recovered, connect(recovered.address) as connection:
        found = {row[0] for row in connection.execute("SELECT n FROM ledger")}
    assert writers.acknowledged <= found
    # Beyond the acknowledged at most the one in hand of each writer.
    assert len(found - writers.acknowledged) <= WRITERS


def test_without_a_receiver_a_synchronous_commit_waits_however_the_standbys_are_named(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server", DURABLE) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        for names in NAMINGS:
            set_parameter(cluster.address, "synchronous_standby_names", f"'{names}'")
            assert read_server(cluster.address, "synchronous").synchronous, names
            commit = Commit(cluster.address)
            assert not commit.done.wait(WITHOUT_A_RECEIVER_S), names
            # So long that only the synchronous mode can be what stores the open segment.
            with receiving(settings, slot="synchronous", partial_every=3600) as receiver:
                assert commit.done.wait(30), names
                assert reaches(store, commit.lsn), names
            assert receiver.error is None
            commit.join()
