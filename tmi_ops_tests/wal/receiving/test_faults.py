"""Receiving WAL while everything around it dies: nothing is lost, nothing comes twice, and what cannot be is said."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmi_ops.postgres.cluster import RunningCluster, start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.lease import LeaseHeldError
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops.wal.slot import SlotLostError, WalGoneError, read_server
from tmi_ops_tests.killable_s3 import killable_s3
from tmi_ops_tests.physical import PHYSICAL_PARAMETERS, Notes, kill, physical_cluster, set_parameter, settings_for
from tmi_ops_tests.store.faulty_proxy import Fault, Request, faulty_proxy
from tmi_ops_tests.tcp_relay import tcp_relay
from tmi_ops_tests.variables import variables_of
from tmi_ops_tests.wal.receiving.receivers import (
    archive_of,
    assert_equal_to_pg_wal,
    flushed,
    holes,
    reaches,
    receiving,
    until,
    write_wal,
)

pytestmark = pytest.mark.slow


@contextmanager
def load(postgres: PostgresSettings) -> Iterator[None]:
    """Somebody writes all the while."""
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            write_wal(postgres, 1)
            enough.wait(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        enough.set()
        writer.join()


def receiver_process(settings: Settings, slot: str) -> subprocess.Popen[bytes]:
    """`tmi-ops wal stream` as a process of its own."""
    command = [sys.executable, "-m", "tmi_ops.cli.main", "wal", "stream", "--slot", slot, "--partial-every", "0.2"]
    return subprocess.Popen(
        command, env=variables_of(settings), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_receiver_killed_with_sigkill_again_and_again_loses_nothing_and_goes_on_from_the_store_alone(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path
) -> None:
    with load(source.postgres):
        for _ in range(3):
            process = receiver_process(source, "killed")
            here = flushed(source.postgres)
            until(lambda here=here: reaches(store, here), "the new receiver goes on")  # type: ignore[misc]
            process.kill()
            process.wait()
    process = receiver_process(source, "killed")
    here = flushed(source.postgres)
    until(lambda: reaches(store, here), "the last receiver goes on")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert_equal_to_pg_wal(store, cluster, tmp_path)


def test_the_server_is_killed_under_load_and_comes_back(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server") as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path)
        store = open_store(settings.store, settings.environment)
        with receiving(settings, slot="server_dies") as receiver:
            write_wal(cluster.address, 20)
            kill(cluster)
            cluster.process.wait()
            cluster.guard.release()
            again = _start_again(programs, cluster)
            try:
                write_wal(cluster.address, 20)
                here = flushed(cluster.address)
                until(lambda: reaches(store, here), "the receiver went on")
                assert_equal_to_pg_wal(store, again, tmp_path)
            finally:
                receiver.stop.set()
                again.stop()
    assert receiver.error is None


def test_the_store_is_killed_under_load_and_comes_back(cluster: RunningCluster, tmp_path: Path) -> None:
    with killable_s3(tmp_path / "s3") as s3:
        settings = settings_for(cluster.address, s3.settings, tmp_path)
        store = open_store(settings.store, settings.environment)
        with receiving(settings, slot="store_dies") as receiver, load(cluster.address):
            here = flushed(cluster.address)
            until(lambda: reaches(store, here), "it receives")
            s3.die_and_come_back()
            write_wal(cluster.address, 30)
            here = flushed(cluster.address)
            until(lambda: reaches(store, here), "it received all")
        assert receiver.error is None
        assert_equal_to_pg_wal(store, cluster, tmp_path)


def test_while_the_store_refuses_everything_the_server_is_told_of_nothing_and_keeps_its_wal(
    source: Settings, store: ObjectStore
) -> None:
    catch_up_wal(source, store, SilentReport(), StreamOptions(slot="refusing"))
    before = read_server(source.postgres, "refusing").slot
    with faulty_proxy(source.store) as proxy:
        through_proxy = source.model_copy(update={"store": proxy.settings})
        with receiving(through_proxy, slot="refusing") as receiver:
            until(lambda: bool(receiver.notes.noted), "it receives")
            proxy.first(200, "refuse 503", _is_wal)
            write_wal(source.postgres, 20)
            here = flushed(source.postgres)
            during = read_server(source.postgres, "refusing").slot
            assert before is not None
            assert during is not None
            assert before.restart_lsn is not None
            assert during.restart_lsn is not None
            # It may speak of what lay in the store before, never of what came since.
            assert during.restart_lsn <= archive_end(store)
            proxy.first(0, "refuse 503", _is_wal)
            until(lambda: reaches(store, here), "it received all in the end")
    assert receiver.error is None


def archive_end(store: ObjectStore) -> int:
    end = archive_of(store).newest_lsn(1)
    assert end is not None
    return end


def _is_wal(request: Request) -> bool:
    return request.method == "PUT" and "/wal/" in request.path and "lease" not in request.path


def test_answers_that_get_lost_and_connections_that_break_on_the_way_to_the_store_store_nothing_twice_or_wrong(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path
) -> None:
    with faulty_proxy(source.store) as proxy:
        proxy.first(4, "lose answer", _is_wal)
        through_proxy = source.model_copy(update={"store": proxy.settings})
        with receiving(through_proxy, slot="lossy") as receiver:
            write_wal(source.postgres, 40)
            proxy.first(4, "cut request", _is_wal)
            write_wal(source.postgres, 20)
            here = flushed(source.postgres)
            until(lambda: reaches(store, here), "it received all")
    assert receiver.error is None
    assert_equal_to_pg_wal(store, cluster, tmp_path)


@pytest.mark.parametrize("fault", ["refuse 500", "answer late"])
def test_a_store_that_fails_now_and_then_or_is_slow_only_delays_the_archive(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path, fault: Fault
) -> None:
    with faulty_proxy(source.store) as proxy:
        proxy.first(4, fault, _is_wal)
        through_proxy = source.model_copy(update={"store": proxy.settings})
        with receiving(through_proxy, slot=f"struggling_{fault.split()[0]}") as receiver:
            write_wal(source.postgres, 60)
            here = flushed(source.postgres)
            until(lambda: reaches(store, here), "it received all")
    assert receiver.error is None
    assert proxy.suffered
    assert_equal_to_pg_wal(store, cluster, tmp_path)


def test_a_cut_network_is_outlasted(
    source: Settings, cluster: RunningCluster, store: ObjectStore, tmp_path: Path
) -> None:
    with tcp_relay(cluster.address.port) as network:
        far = source.model_copy(update={"postgres": source.postgres.model_copy(update={"port": network.port})})
        with receiving(far, slot="network") as receiver:
            for _ in range(3):
                write_wal(source.postgres, 10)
                network.cut()
                write_wal(source.postgres, 5)
                network.mend()
            here = flushed(source.postgres)
            until(lambda: reaches(store, here), "it received all")
    assert receiver.error is None
    assert any("Retrying" in note for note in receiver.notes.noted)
    assert_equal_to_pg_wal(store, cluster, tmp_path)


def test_of_two_receivers_one_works_and_the_other_names_it_or_stands_by_and_takes_over(
    source: Settings, store: ObjectStore
) -> None:
    with receiving(source, slot="pair") as first:
        here = flushed(source.postgres)
        until(lambda: reaches(store, here), "the first receives")
        with pytest.raises(LeaseHeldError, match="already receives this cluster's WAL: process"):
            catch_up_wal(source, store, SilentReport(), StreamOptions(slot="another"))
        with receiving(source, slot="pair", wait=True) as second:
            until(lambda: any("Standing by" in note for note in second.notes.noted), "the second stands by")
            first.stop.set()
            write_wal(source.postgres, 5)
            there = flushed(source.postgres)
            until(lambda: reaches(store, there), "the second took over")
    assert (first.error, second.error) == (None, None)


def test_a_slot_that_the_server_gave_up_is_named_and_going_on_needs_a_decision(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server", {"max_wal_size": "32MB"}) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path)
        store = open_store(settings.store, settings.environment)
        notes = Notes()
        catch_up_wal(settings, store, notes, StreamOptions(slot="lost"))
        assert any("max_slot_wal_keep_size is unlimited" in note for note in notes.noted)
        set_parameter(cluster.address, "max_slot_wal_keep_size", "'16MB'")
        write_wal(cluster.address, 120)
        with connect(cluster.address) as connection:
            connection.execute("CHECKPOINT")
        until(lambda: _status(cluster.address, "lost") == "lost", "the server gives it up")
        with pytest.raises(SlotLostError, match="accept-gap"):
            catch_up_wal(settings, store, SilentReport(), StreamOptions(slot="lost"))
        received = catch_up_wal(settings, store, SilentReport(), StreamOptions(slot="lost", accept_gap=True))
        assert received is not None
        assert holes(archive_of(store), timeline=1)


def test_wal_that_the_server_removed_because_nobody_kept_a_slot_is_named(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server", {"max_wal_size": "32MB"}) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path)
        store = open_store(settings.store, settings.environment)
        write_wal(cluster.address, 20)
        catch_up_wal(settings, store, SilentReport(), StreamOptions(slot="gone"))
        with connect(cluster.address) as connection:
            connection.execute("SELECT pg_drop_replication_slot('gone')")
        write_wal(cluster.address, 120)
        with connect(cluster.address) as connection:
            connection.execute("CHECKPOINT")
            connection.execute("CHECKPOINT")
        with pytest.raises(WalGoneError, match="has removed WAL that the archive lacks"):
            catch_up_wal(settings, store, SilentReport(), StreamOptions(slot="gone"))


def _status(postgres: PostgresSettings, slot: str) -> str | None:
    facts = read_server(postgres, slot).slot
    return None if facts is None else facts.status


def _start_again(programs: Programs, cluster: RunningCluster) -> RunningCluster:
    data = cluster.directory
    return start_cluster(
        programs,
        data,
        server_identity(programs.path("postgres"), data.parent),
        cluster.address,
        parameters=PHYSICAL_PARAMETERS,
        log=data.parent / "again.log",
    )
