from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tmi_ops.backup import restore_point
from tmi_ops.backup.restore_point import create_restore_point
from tmi_ops.errors import BackupError, DatabaseError, ObjectExistsError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.restore_points import read_restore_point
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import Notes
from tmi_ops_tests.variables import variables_of


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    with connect(settings.postgres) as connection:
        connection.execute("CREATE TABLE ledger (id serial PRIMARY KEY, what text)")
        connection.execute("CREATE TABLE counter (n bigint); INSERT INTO counter VALUES (0)")
    return open_store(settings.store, settings.environment)


def test_it_is_recorded_with_its_place_in_the_wal_and_every_table(settings: Settings, store: ObjectStore) -> None:
    with connect(settings.postgres) as connection:
        connection.execute("INSERT INTO ledger (what) VALUES ('a'), ('b')")
    point = create_restore_point(settings, store, "before 2.0/import", SilentReport())
    assert read_restore_point(store, "before 2.0/import") == point
    assert {name: one.rows for name, one in point.fingerprints.items()} == {"public.ledger": 2, "public.counter": 1}
    assert (point.database, point.timeline) == (settings.postgres.database, 1)
    assert read_restore_point(store, "another") is None


def test_unlogged_and_temporary_tables_are_no_part_of_it(settings: Settings, store: ObjectStore) -> None:
    with connect(settings.postgres) as connection:
        connection.execute("CREATE UNLOGGED TABLE cache AS SELECT 1 AS i")
        connection.execute("CREATE TEMPORARY TABLE mine AS SELECT 1 AS i")
        point = create_restore_point(settings, store, "without a cache", SilentReport())
    assert set(point.fingerprints) == {"public.ledger", "public.counter"}


def test_writers_go_on_while_it_fingerprints_and_nothing_of_theirs_is_in_it(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = restore_point.fingerprint_tables

    def write_then_fingerprint(*args: object) -> object:
        with connect(settings.postgres) as connection:
            connection.execute("SET lock_timeout = '1s'; INSERT INTO ledger (what) VALUES ('too late')")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(restore_point, "fingerprint_tables", write_then_fingerprint)
    point = create_restore_point(settings, store, "calm", SilentReport())
    assert point.fingerprints["public.ledger"].rows == 0


@pytest.mark.slow
def test_a_transaction_that_began_before_is_waited_for_and_part_of_it(settings: Settings, store: ObjectStore) -> None:
    written, notes = threading.Event(), Notes()

    def write_slowly() -> None:
        with connect(settings.postgres, autocommit=False) as connection:
            connection.execute("INSERT INTO ledger (what) VALUES ('slow')")
            written.set()
            while not any("trying again" in note for note in notes.noted):
                time.sleep(0.01)

    writer = threading.Thread(target=write_slowly, daemon=True)
    writer.start()
    written.wait(10)
    point = create_restore_point(settings, store, "after the slow one", notes)
    writer.join()
    assert point.fingerprints["public.ledger"].rows == 1
    assert notes.noted[-1].startswith("Writers were blocked for ")


@pytest.mark.slow
def test_a_writer_that_does_not_end_is_named_and_nobody_else_is_kept_waiting(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_point, "ATTEMPTS", 2)
    monkeypatch.setattr(restore_point, "PAUSE_S", 0.01)
    with connect(settings.postgres, autocommit=False) as connection:
        connection.execute("SET application_name = 'nightly_import'")
        connection.execute("INSERT INTO ledger (what) VALUES ('endless')")
        with pytest.raises(BackupError, match="nightly_import") as refused:
            create_restore_point(settings, store, "never", SilentReport())
        assert "No restore point was created" in refused.value.detail
    with connect(settings.postgres) as connection:
        connection.execute("SET lock_timeout = '1s'; UPDATE counter SET n = 1")
    assert read_restore_point(store, "never") is None


def test_a_name_is_used_once(settings: Settings, store: ObjectStore) -> None:
    create_restore_point(settings, store, "once", SilentReport())
    with pytest.raises(ObjectExistsError, match="'once' already"):
        create_restore_point(settings, store, "once", SilentReport())


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 64])
def test_what_postgresql_would_cut_or_a_person_cannot_type_is_no_name(
    name: str, settings: Settings, store: ObjectStore
) -> None:
    with pytest.raises(BackupError, match="is not a valid restore point name"):
        create_restore_point(settings, store, name, SilentReport())


def test_a_role_without_the_rights_is_told_what_to_grant(settings: Settings, store: ObjectStore) -> None:
    with connect(settings.postgres) as connection:
        connection.execute("CREATE ROLE pointless LOGIN PASSWORD 'pointless'")
        connection.execute("GRANT SELECT ON ledger, counter TO pointless")
    role = {**settings.postgres.model_dump(), "user": "pointless", "password": "pointless"}
    theirs = settings.model_copy(update={"postgres": PostgresSettings.model_validate(role)})
    try:
        with pytest.raises(DatabaseError, match="may not lock tables against writers") as refused:
            create_restore_point(theirs, store, "no", SilentReport())
        assert "GRANT MAINTAIN" in refused.value.hint
        with connect(settings.postgres) as connection:
            connection.execute("GRANT UPDATE ON ledger, counter TO pointless")
        with pytest.raises(DatabaseError, match="may not create a restore point") as refused:
            create_restore_point(theirs, store, "no", SilentReport())
        assert "pg_create_restore_point" in refused.value.hint
    finally:
        with connect(settings.postgres) as connection:
            connection.execute("DROP OWNED BY pointless; DROP ROLE pointless")


@pytest.mark.slow
def test_the_command_says_what_was_recorded(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    words = ("restore-point", "before-import", "--quiet")
    environment = {**variables_of(settings), "COLUMNS": "200"}
    done = command(*words, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Restore point before-import at LSN " in done.stdout
    assert "1 rows in 2 tables recorded" in done.stdout
    again = command(*words, env=environment, cwd=tmp_path)
    assert again.returncode == 2
    assert "already exists" in again.stderr
