from __future__ import annotations

import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tmi_ops.backup import copying, logical
from tmi_ops.backup.archive.toc import ArchiveError
from tmi_ops.backup.dump import LOGICAL_FORMATS, LogicalFormat, dump_command
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.errors import BackupError, DatabaseError, DiskSpaceError, ProgramError
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import find_backup, list_backups
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.backup.source import ROWS, drop_role, fill_source
from tmi_ops_tests.raw_s3 import read_raw, stored_keys
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow


@pytest.fixture
def role() -> str:
    return f"app_{secrets.token_hex(4)}"


@pytest.fixture
def source(settings: Settings, role: str) -> Iterator[Settings]:
    fill_source(settings.postgres, role=role)
    yield settings
    drop_role(settings.postgres, role)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.store, settings.environment)


def _left_in_store(settings: Settings) -> list[str]:
    return [key for key in stored_keys(settings.store) if not key.endswith("RESTORE.md")]


@pytest.mark.parametrize("format_", LOGICAL_FORMATS)
def test_a_backup_of_each_format_is_in_the_catalogue_with_what_a_restore_needs(
    source: Settings, store: ObjectStore, format_: LogicalFormat
) -> None:
    manifest = back_up_logical(source, store, format_, SilentReport())
    assert find_backup(store, "latest").model_dump() == manifest.model_dump()
    names = {item.name for item in manifest.objects}
    assert {"globals.sql", "surroundings.json", "contents.json"} < names
    assert manifest.format == format_
    assert manifest.database == source.postgres.database
    assert manifest.system_identifier is not None
    if format_ != "schema-only":
        assert manifest.fingerprints["public.threat_models"].rows == ROWS
        assert manifest.sequences["public.ticket"].before == 104


def test_a_backup_is_of_one_moment_while_the_source_changes(source: Settings, store: ObjectStore) -> None:
    stop = threading.Event()

    def write() -> None:
        with connect(source.postgres) as connection:
            while not stop.is_set():
                connection.execute("UPDATE threats SET severity = 'High' WHERE id % 7 = (random() * 7)::int")
                connection.execute("DELETE FROM threats WHERE id = (SELECT min(id) FROM threats)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifest = back_up_logical(source, store, "custom", SilentReport())
    finally:
        stop.set()
        writer.join()
    from tmi_ops.recovery.verify import verify_backup

    assert verify_backup(source, store, manifest, SilentReport()).verification.reasons == ()


def test_no_password_verifier_reaches_an_unencrypted_store(source: Settings, store: ObjectStore) -> None:
    manifest = back_up_logical(source, store, "custom", SilentReport())
    assert not manifest.globals_include_passwords
    contents = b"".join(read_raw(source.store, key) for key in stored_keys(source.store))
    assert b"SCRAM-SHA-256" not in contents
    assert source.postgres.password is not None
    assert source.postgres.password.get_secret_value().encode() not in contents


def test_a_dump_that_fails_leaves_nothing_behind(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        copying,
        "dump_command",
        lambda *a, **k: ["/bin/sh", "-c", '"$@"; echo torn >&2; exit 1', "sh", *dump_command(*a, **k)],
    )
    with pytest.raises(ProgramError, match="torn"):
        back_up_logical(source, store, "custom", SilentReport())
    assert list_backups(store) == []
    assert _left_in_store(source) == []


@pytest.mark.timeout(120)  # a dump that went on would take 600 s
def test_a_reading_of_the_source_that_fails_ends_the_dump_at_once(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("the connection is gone")

    monkeypatch.setattr(logical, "left_behind", fail)
    monkeypatch.setattr(copying, "dump_command", lambda *_a, **_k: ["/bin/sh", "-c", "sleep 600"])
    with pytest.raises(DatabaseError, match="connection is gone"):
        back_up_logical(source, store, "custom", SilentReport())
    assert _left_in_store(source) == []


def test_a_dump_that_is_no_archive_is_no_backup(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "dump_command", lambda *_a, **_k: ["/bin/sh", "-c", "yes | head -c 20000000"])
    with pytest.raises(ArchiveError, match="does not begin"):
        back_up_logical(source, store, "custom", SilentReport())
    assert _left_in_store(source) == []


def test_a_pg_dump_older_than_the_server_is_refused_with_the_cure(
    source: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.22'\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ProgramError, match=r"12\.22") as caught:
        back_up_logical(source.model_copy(update={"pg_bindir": tmp_path}), store, "custom", SilentReport())
    assert "TMI_OPS_PG_BINDIR" in caught.value.hint
    assert _left_in_store(source) == []


class _AtOnce(ThreadPoolExecutor):
    """Has done what it is given before it goes on."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(*args, **kwargs)
        wait([future])
        return future


def test_a_file_of_the_directory_format_may_be_sent_and_gone_at_once(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ThreadPoolExecutor", _AtOnce)
    manifest = back_up_logical(source, store, "directory", SilentReport())
    assert sum(found.rows for found in manifest.fingerprints.values()) > 0


def test_a_disk_too_small_for_the_directory_format_is_foreseen(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(DiskSpaceError):
        back_up_logical(source, store, "directory", SilentReport())
    assert _left_in_store(source) == []


def test_a_table_locked_by_a_schema_change_is_named_as_the_cause(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmi_ops.backup.snapshot.LOCK_TIMEOUT_S", 0.5)
    with psycopg.connect(**connection_parameters(source.postgres)) as blocker:
        blocker.execute("LOCK TABLE threats IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BackupError, match="locked exclusively") as caught:
            back_up_logical(source, store, "custom", SilentReport())
        assert f"process {blocker.info.backend_pid}" in caught.value.message
        blocker.rollback()


def test_a_role_that_may_not_read_every_table_says_which_grant_is_missing(
    source: Settings, store: ObjectStore, role: str
) -> None:
    with connect(source.postgres) as connection:
        connection.execute(f"ALTER ROLE {role} PASSWORD 'known'".encode())
    limited = source.postgres.model_copy(update={"user": role, "password": _secret("known")})
    with pytest.raises(DatabaseError, match="permission denied") as caught:
        back_up_logical(source.model_copy(update={"postgres": limited}), store, "custom", SilentReport())
    assert "pg_read_all_data" in caught.value.hint


_SLOW_BACKUP = """
import sys
from tmi_ops.backup import copying, counting
counting.ContentsReader.feed = lambda self, chunk: None
copying.dump_command = lambda *a, **k: ["/bin/sh", "-c", "yes | head -c 200000000000"]
from tmi_ops.cli.main import main
main(["backup", "logical", "--quiet"])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup_leaves_nothing_in_the_store(
    source: Settings, how: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BACKUP], env=variables_of(source), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not _uploading(source) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _uploading(source)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert _left_in_store(source) == []
    assert not _uploading(source)


def _uploading(settings: Settings) -> bool:
    from tmi_ops_tests.raw_s3 import raw_client

    listing = raw_client(settings.store).list_multipart_uploads(
        Bucket=settings.store.bucket, Prefix=settings.store.prefix
    )
    return bool(listing.get("Uploads"))


def _secret(text: str) -> object:
    from pydantic import SecretStr

    return SecretStr(text)
