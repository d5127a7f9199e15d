from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tmi_ops.backup import copying, lock_queue
from tmi_ops.backup.dump import dump_command
from tmi_ops.backup.lock_queue import InTheWay, LockQueueWatch, decide, described
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.errors import BackupError
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.lock_table import LockTable
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import open_store

OURS = InTheWay(7, waits_for_us=True, described="process 7")
HIS_OWN = InTheWay(8, waits_for_us=False, described="process 8")


def test_the_backup_gives_way_to_who_waits_for_it_at_once_and_gives_up_on_others_in_time() -> None:
    assert decide([], 1000) == "go on"
    assert decide([HIS_OWN, OURS], 0) == "give way"
    assert decide([HIS_OWN], lock_queue.PATIENCE_S) == "go on"
    assert decide([HIS_OWN], lock_queue.PATIENCE_S + 1) == "give up"


def test_waiting_is_counted_from_its_beginning_and_anew_after_a_pause() -> None:
    watch = LockQueueWatch()
    assert watch.take([HIS_OWN], 100) == "go on"
    assert watch.take([], 150) == "go on"
    assert watch.take([HIS_OWN], 155) == "go on"
    assert watch.take([HIS_OWN], 155 + lock_queue.PATIENCE_S + 1) == "give up"
    assert watch.described == "process 8"


def test_a_session_is_described_without_values_and_control_characters() -> None:
    said = described(7, "app\x1b", "psql", "alter  table threats\n add note text default 'secret'")
    assert said == "process 7 (app?, psql): alter table threats add note text default"
    assert (
        described(8, None, None, "ALTER ROLE x PASSWORD 'secret'") == "process 8 (of the server): ALTER ROLE x PASSWORD"
    )


def test_the_room_that_many_tables_need_is_said_in_steps_and_is_never_less_than_there_is() -> None:
    stock = LockTable(max_locks=64, holders=121)
    assert stock.max_locks_for(50) == 64
    assert stock.max_locks_for(20_000) == 256
    assert "max_locks_per_transaction = 256 (now 64)" in stock.advice(20_000)
    assert "= 1024 (now 512)" in LockTable(512, 121).advice(20_000)


@pytest.fixture
def tables(database: PostgresSettings) -> Iterator[PostgresSettings]:
    with connect(database) as connection:
        connection.execute("CREATE TABLE a AS SELECT 1 AS id; CREATE TABLE b AS SELECT generate_series(1, 5) AS id")
    yield database


def test_a_truncate_that_commits_while_the_lock_is_waited_for_is_seen_whole(tables: PostgresSettings) -> None:
    with psycopg.connect(**connection_parameters(tables)) as writer:
        writer.execute("TRUNCATE b; INSERT INTO b SELECT generate_series(1, 7)")
        threading.Timer(1.5, writer.commit).start()
        with exported_snapshot(tables) as snapshot:
            assert snapshot.connection.execute("SELECT count(*) FROM public.b").fetchone() == (7,)


def test_a_table_that_is_dropped_or_made_meanwhile_is_no_failure(tables: PostgresSettings) -> None:
    with psycopg.connect(**connection_parameters(tables)) as writer:
        writer.execute("DROP TABLE a; CREATE TABLE c AS SELECT 1 AS id; LOCK TABLE b")
        threading.Timer(1.5, writer.commit).start()
        with exported_snapshot(tables) as snapshot:
            assert {table.name for table in snapshot.locked} == {"b", "c"}
            held = snapshot.connection.execute(
                "SELECT count(DISTINCT relation) FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384"
            ).fetchone()
    assert held == (2,)


def test_nobody_waits_for_a_backup_that_waits(tables: PostgresSettings) -> None:
    """It holds a's lock while it waits for b's; who wants a then must get it before the server ends somebody."""
    with psycopg.connect(**connection_parameters(tables)) as blocker, connect(tables) as other:
        blocker.execute("LOCK TABLE b")
        done = threading.Event()

        def snapshot() -> None:
            with exported_snapshot(tables):
                done.set()

        thread = threading.Thread(target=snapshot)
        thread.start()
        time.sleep(0.3)
        other.execute("SET lock_timeout = '3s'")
        other.execute("ALTER TABLE a ADD note text")
        blocker.execute("ALTER TABLE a ADD more text")
        blocker.commit()
        thread.join()
        assert done.is_set()


class _Notes(SilentReport):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.slow
def test_an_alter_between_our_lock_and_pg_dumps_goes_first_and_the_backup_begins_anew(
    settings: Settings, tables: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = threading.Event()

    def late(*args: object, **kwargs: object) -> list[object]:
        argv = dump_command(*args, **kwargs)  # type: ignore[arg-type]
        if first.is_set():
            return list(argv)
        first.set()
        return ["/bin/sh", "-c", 'sleep 1.5; exec "$@"', "sh", *argv]

    monkeypatch.setattr(copying, "dump_command", late)

    def alter() -> None:
        first.wait(20)
        time.sleep(0.3)
        with connect(tables) as connection:
            connection.execute("ALTER TABLE b ADD note text")

    thread = threading.Thread(target=alter)
    thread.start()
    report = _Notes()
    manifest = back_up_logical(settings, open_store(settings.store, settings.environment), "custom", report)
    thread.join()  # without the backup giving way neither would end
    assert manifest.fingerprints["public.b"].rows == 5
    (note,) = [note for note in report.notes if "gave way" in note]
    assert "ALTER TABLE b ADD note text" in note


@pytest.mark.slow
def test_locks_that_the_server_has_no_room_for_are_counted_and_the_setting_is_named(
    programs: Programs, tmp_path: Path
) -> None:
    small = {"max_connections": "8", "max_locks_per_transaction": "10", "max_worker_processes": "0"}
    with scratch_cluster(programs, tmp_path, parameters=small) as cluster:
        with connect(cluster.address) as connection:
            connection.execute(
                "DO $$ BEGIN FOR i IN 1..60 LOOP FOR j IN 1..50 LOOP "
                "EXECUTE format('CREATE TABLE m_%s_%s ()', i, j); END LOOP; COMMIT; END LOOP; END $$"
            )
        with (
            pytest.raises(BackupError, match="lock 3,000 tables at once") as caught,
            exported_snapshot(cluster.address),
        ):
            pass
    assert "ALTER SYSTEM SET max_locks_per_transaction = 4" in caught.value.hint
    assert "(now 10)" in caught.value.hint
