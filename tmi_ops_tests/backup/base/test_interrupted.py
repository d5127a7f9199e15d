from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.backup import base
from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import BackupError, DatabaseError, StoreError
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.backup_documents import discard
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.folders import folders_of
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.killable_s3 import killable_s3
from tmi_ops_tests.physical import Progress, kill, nothing_is_left, physical_cluster, settings_for, slots
from tmi_ops_tests.store.faulty_proxy import Fault, faulty_proxy
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow

INTERRUPTED_BACKUP = """
import sys
from tmi_ops.backup.base import back_up_base
from tmi_ops.progress import SilentReport
from tmi_ops.settings import load_settings
from tmi_ops.store.objects import open_store
settings = load_settings()
store = open_store(settings.store, settings.environment)
print("begun", flush=True)
back_up_base(settings, store, SilentReport(), max_rate=2 << 20)
"""


def _await_walsender(settings: Settings) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connect(settings.postgres) as connection:
            if connection.execute("SELECT FROM pg_stat_progress_basebackup").fetchone() is not None:
                return
        time.sleep(0.1)
    raise AssertionError("no base backup began")


def _drained(parts):
    for part in parts:
        if part.archive is not None:
            for _ in part.chunks:
                pass
        yield part


def test_a_server_killed_in_the_middle_leaves_nothing_half_made(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path) as doomed:
        settings = settings_for(doomed.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        report = Progress(after=4 << 20, then=lambda: kill(doomed))
        with pytest.raises(DatabaseError) as caught:
            back_up_base(settings, store, report, max_rate=2 << 20)
        assert caught.value.transient
        assert nothing_is_left(settings)


def test_a_store_killed_in_the_middle_fails_the_backup_which_then_does_not_exist(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    with killable_s3(tmp_path / "s3") as s3:
        settings = settings_for(cluster.address, s3.settings, tmp_path / "home")
        patient = open_store(settings.store, settings.environment)
        store = patient.patient(s3.settings, 1)
        with pytest.raises(StoreError, match="could not be reached") as caught:
            back_up_base(settings, store, Progress(after=8 << 20, then=s3.kill))
        assert caught.value.transient
        assert any("could not be removed" in note for note in caught.value.__notes__)
        s3.start()
        assert list_backups(store) == []
        for half_made in folders_of(store.list_objects("base/")):
            discard(store, half_made.backup_id)
        store.abort_stale_uploads("base/", older_than=timedelta(0))
        assert nothing_is_left(settings)
        assert slots(settings.postgres) == []


def test_a_store_killed_in_the_middle_and_back_within_seconds_costs_nothing(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    with killable_s3(tmp_path / "s3") as s3:
        settings = settings_for(cluster.address, s3.settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)

        manifest = back_up_base(settings, store, Progress(after=8 << 20, then=s3.die_and_come_back))
        for item in manifest.objects:
            assert sum(map(len, store.download(f"base/{manifest.backup_id}/{item.name}", item))) == item.plain_size


@pytest.mark.parametrize("fault", ["refuse 500", "refuse 503", "answer late", "lose answer", "cut request"])
def test_a_store_that_struggles_for_a_while_costs_nothing(source: Settings, store: ObjectStore, fault: Fault) -> None:
    with faulty_proxy(source.store) as proxy:
        struggling = open_store(proxy.settings, source.environment)
        proxy.first(4, fault, lambda request: request.method in ("PUT", "POST"))
        manifest = back_up_base(source, struggling, SilentReport())
    assert proxy.suffered
    for item in manifest.objects:
        assert sum(map(len, store.download(f"base/{manifest.backup_id}/{item.name}", item))) == item.plain_size


def test_an_archive_the_server_announced_and_did_not_send_is_no_backup(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = base.split_parts
    monkeypatch.setattr(
        base,
        "split_parts",
        lambda messages, progress: (part for part in _drained(whole(messages, progress)) if part.archive is None),
    )
    with pytest.raises(BackupError, match="0 of 1 announced archives"):
        back_up_base(source, store, SilentReport())
    assert nothing_is_left(source)


@contextmanager
def _half_way(source: Settings, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a base backup."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_BACKUP],
        env=os.environ | variables_of(source),
        stdout=subprocess.PIPE,
        cwd=directory,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        _await_walsender(source)
        time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def _await_no_slot(source: Settings) -> None:
    deadline = time.monotonic() + 10
    while slots(source.postgres) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert slots(source.postgres) == []


def test_ctrl_c_in_the_middle_leaves_nothing_in_the_store_and_no_slot_on_the_server(
    source: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    with _half_way(source, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode != 0
        assert b"KeyboardInterrupt" in said
    assert nothing_is_left(source)
    _await_no_slot(source)


def test_kill_9_in_the_middle_leaves_no_backup_and_no_slot_and_the_next_one_is_whole(
    source: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    with _half_way(source, tmp_path) as process:
        process.kill()
    assert list_backups(store) == []
    _await_no_slot(source)
    manifest = back_up_base(source, store, SilentReport())
    assert [entry.manifest.backup_id for entry in list_backups(store)] == [manifest.backup_id]
