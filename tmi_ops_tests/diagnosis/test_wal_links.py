"""Set-ups in which backups of files or the WAL archive cannot work."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops_tests.diagnosis.asserting import assert_cause, statements_of
from tmi_ops_tests.diagnosis.conftest import Examine, login
from tmi_ops_tests.house import House, house
from tmi_ops_tests.physical import reload_configuration

MONITORS = "IN ROLE pg_monitor"
# Everything about the tables is another test's; these servers hold an empty database.
EMPTY = {"POSTGRES_DB": "postgres"}


@pytest.fixture(scope="module")
def bare_house(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[House]:
    """A server that may be restarted."""
    with house(programs, tmp_path_factory.mktemp("bare")) as built:
        yield built


@pytest.fixture(autouse=True)
def no_slot_of_ours(server_house: House) -> Iterator[None]:
    yield
    with connect(server_house.address) as connection:
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@pytest.mark.slow
def test_a_server_of_level_minimal_is_mended_by_the_statements_and_a_restart(
    examine: Examine, bare_house: House
) -> None:
    here = {**login(bare_house.address), **EMPTY}
    bare_house.configure(wal_level="minimal", max_wal_senders="0")
    diagnosis = examine(here)
    fix = assert_cause(diagnosis, "wal-level", "wal_level = minimal", "restart the server")
    assert diagnosis.result("replication").because == "wal-level"
    bare_house.run(*statements_of(fix))
    reload_configuration(bare_house.address)
    assert_cause(examine(here), "wal-level", "has not been restarted since")
    bare_house.restart()
    mended = examine(here)
    assert [mended.result(name).outcome for name in ("wal-level", "wal-senders", "replication")] == [Outcome.OK] * 3


def test_a_server_without_walsenders_gets_them(examine: Examine, bare_house: House) -> None:
    here = {**login(bare_house.address), **EMPTY}
    bare_house.configure(max_wal_senders="0")
    fix = assert_cause(examine(here), "wal-senders", "max_wal_senders = 0")
    bare_house.run(*statements_of(fix))
    bare_house.restart()
    assert examine(here).result("wal-senders").outcome is Outcome.OK


def test_an_archive_command_that_fails_is_named_before_the_disk_is_full(examine: Examine, bare_house: House) -> None:
    here = {**login(bare_house.address), **EMPTY}
    bare_house.configure(archive_mode="on", archive_command="test ! -e pg_wal/%f.never && false")
    _switch_wal_until(bare_house, "SELECT failed_count > 0 FROM pg_stat_archiver")
    fix = assert_cause(examine(here), "archiver", "archiving of segment", "test ! -e pg_wal/%f.never", "disk is full")
    bare_house.run(*statements_of(fix))
    _switch_wal_until(bare_house, "SELECT last_archived_time > last_failed_time FROM pg_stat_archiver")
    assert examine(here).result("archiver").outcome is Outcome.OK


def test_archiving_without_a_command_is_named(examine: Examine, bare_house: House) -> None:
    here = {**login(bare_house.address), **EMPTY}
    bare_house.configure(archive_mode="on", archive_command="")
    fix = assert_cause(examine(here), "archiver", "neither archive_command nor archive_library is set")
    bare_house.run(*statements_of(fix))
    bare_house.restart()
    assert examine(here).result("archiver").outcome is Outcome.OK


def test_a_role_without_replication_gets_it(examine: Examine, server_house: House) -> None:
    with server_house.role(MONITORS, reads=True) as role:
        fix = assert_cause(examine(login(role)), "replication", "lacks REPLICATION")
        assert statements_of(fix) == [f'ALTER ROLE "{role.user}" REPLICATION;']
        server_house.run(*statements_of(fix))
        assert examine(login(role)).root_cause is None


def test_pg_hba_without_a_line_for_replication_gets_exactly_the_line_that_is_named(
    examine: Examine, server_house: House
) -> None:
    file = server_house.data / "pg_hba.conf"
    before = file.read_text()
    with server_house.role("REPLICATION", MONITORS, reads=True) as role:
        try:
            file.write_text("host all all all scram-sha-256\n")
            with server_house.hba():
                diagnosis = examine(login(role))
            fix = assert_cause(diagnosis, "replication", "`all` in the database column does not include it")
            assert diagnosis.result("database").outcome is Outcome.OK
            line = next(line for line in fix if line.startswith("host"))
            assert line.split()[1:3] == ["replication", role.user]
            with server_house.hba(line):
                assert examine(login(role)).root_cause is None
        finally:
            file.write_text(before)
            with server_house.hba():
                pass


@pytest.fixture
def pooler(server_house: House) -> Iterator[int]:
    """Stands for PgBouncer before 1.23: passes sessions on to the server, and knows no replication."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_pool, args=(listener, server_house.address.port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _pool(listener: socket.socket, target: int) -> None:
    said = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            opening = client.recv(4096)
            if b"replication\0" in opening:
                client.sendall(b"E" + struct.pack("!I", 4 + len(said)) + said)
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", target))
            server.sendall(opening)
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=_hand_on, args=(here, there), daemon=True).start()


def _hand_on(here: socket.socket, there: socket.socket) -> None:
    with suppress(OSError):
        while content := here.recv(1 << 16):
            there.sendall(content)
        there.shutdown(socket.SHUT_WR)


def test_a_pooler_in_between_is_named(examine: Examine, pooler: int) -> None:
    diagnosis = examine(POSTGRES_PORT=str(pooler))
    assert_cause(diagnosis, "replication", "connection pooler", "the PostgreSQL server itself")
    assert diagnosis.result("rights").outcome is Outcome.OK


def test_slots_that_are_all_taken_are_named_with_the_ones_nobody_uses(examine: Examine, server_house: House) -> None:
    for number in range(4):
        server_house.run(f"SELECT pg_create_physical_replication_slot('left_{number}')")
    fix = assert_cause(examine(), "replication-slots", "4 of max_replication_slots = 4", "left_0, left_1")
    drops = [line for line in statements_of(fix) if "pg_drop_replication_slot" in line]
    assert len(drops) == 4
    server_house.run(drops[0])
    assert examine().root_cause is None


def test_a_slot_that_the_server_has_given_up_is_named_with_the_way_on(examine: Examine, server_house: House) -> None:
    server_house.run("SELECT pg_create_physical_replication_slot('tmi_ops', true)")
    assert examine().root_cause is None
    _write_wal(server_house, megabytes=160)
    fix = assert_cause(examine(), "slot", "the slot tmi_ops is lost", "the archive has a gap")
    assert fix[0].startswith("tmi-ops wal stream --accept-gap")
    assert fix[1].startswith("tmi-ops backup base")


def test_a_slot_that_may_fill_the_disk_is_a_warning(examine: Examine, server_house: House) -> None:
    server_house.run("SELECT pg_create_physical_replication_slot('tmi_ops', true)")
    server_house.run("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    reload_configuration(server_house.address)
    try:
        fix = assert_cause(examine(), "slot", "fills the server's disk", outcome=Outcome.WARNING)
        server_house.run(*statements_of(fix))
        reload_configuration(server_house.address)
        assert examine().root_cause is None
    finally:
        server_house.run("ALTER SYSTEM RESET max_slot_wal_keep_size")
        reload_configuration(server_house.address)


def test_an_rpo_that_only_wal_can_hold_asks_for_the_receiver(examine: Examine) -> None:
    diagnosis = examine(TMI_OPS_RPO="15m")
    assert_cause(diagnosis, "slot", "RPO of 15 min cannot be met", "tmi-ops wal stream", outcome=Outcome.WARNING)


def test_programs_older_than_the_server_are_named(examine: Examine, programs: Programs, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    # Stands for a distribution's older package, which not every machine has.
    (old / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.22'\n")
    (old / "pg_dump").chmod(0o755)
    fix = assert_cause(examine(TMI_OPS_PG_BINDIR=str(old)), "client-programs", "12", "refuses a newer server")
    assert any(line.startswith(f"apt-get install postgresql-client-{programs.major}") for line in fix)
    assert any("TMI_OPS_PG_BINDIR" in line for line in fix)


def test_a_directory_without_programs_is_named(examine: Examine, tmp_path: Path) -> None:
    diagnosis = examine(TMI_OPS_PG_BINDIR=str(tmp_path))
    assert_cause(diagnosis, "client-programs", "contains no pg_dump", "unset TMI_OPS_PG_BINDIR")


def _write_wal(server_house: House, *, megabytes: int) -> None:
    for _ in range(megabytes // 16):
        server_house.run("SELECT pg_logical_emit_message(false, 'doctor', 'x')", "SELECT pg_switch_wal()")
    server_house.run("CHECKPOINT")


def _switch_wal_until(server_house: House, query: str, timeout_s: float = 90) -> None:
    """Give the archiver segments until the query holds: after three failures it rests for a minute unless woken."""
    deadline = time.monotonic() + timeout_s
    with connect(server_house.address) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(query).fetchone()
            if row and row[0]:
                return
            connection.execute("SELECT pg_logical_emit_message(false, 'doctor', 'x')")
            connection.execute("SELECT pg_switch_wal()")
            time.sleep(0.2)
    raise AssertionError(query)
