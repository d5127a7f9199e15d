"""A fault during a restore ends in success or a precise error, and leaves the directory empty."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, OpsError, RecoveryError, StoreError
from tmi_ops.postgres.wal_files import segment_at
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time import destination as destinations
from tmi_ops.recovery.point_in_time import spool, tar_stream
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import execute_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.killable_s3 import KillableS3, killable_s3
from tmi_ops_tests.physical import Progress
from tmi_ops_tests.raw_s3 import delete_raw, key_ending, raw_client, stored_keys
from tmi_ops_tests.recovery.point_in_time.conftest import Past
from tmi_ops_tests.recovery.point_in_time.restoring import copy_of_store, plan_to, restore
from tmi_ops_tests.store.faulty_proxy import Fault, faulty_proxy

pytestmark = pytest.mark.slow

MOUNT, UMOUNT = shutil.which("mount") or "/bin/mount", shutil.which("umount") or "/bin/umount"


def _damage(settings: Settings, key: str) -> None:
    """Change one byte in the middle of an object; size and metadata stay."""
    client, bucket = raw_client(settings.store), settings.store.bucket
    found = client.get_object(Bucket=bucket, Key=key)
    content = bytearray(found["Body"].read())
    content[len(content) // 2] ^= 0xFF
    client.put_object(Bucket=bucket, Key=key, Body=bytes(content), Metadata=found["Metadata"])


def _segment(settings: Settings, lsn: int) -> str:
    """The key of the segment that holds an LSN."""
    return key_ending(settings.store, f"/{segment_at(1, lsn).name}.zst")


def _refused(settings: Settings, target: Target, directory: Path, kind: type[OpsError] = RecoveryError) -> OpsError:
    with pytest.raises(kind) as caught:
        restore(settings, target, directory)
    assert caught.value.hint
    assert not directory.exists(), sorted(directory.rglob("*"))[:10]
    return caught.value


def test_a_damaged_base_object_is_named_and_an_earlier_base_is_the_next_step(past: Past, directory: Path) -> None:
    settings = copy_of_store(past)
    damaged = past.incremental if past.takes_increments else past.second_incremental
    _damage(settings, key_ending(settings.store, f"{damaged.backup_id}/base.tar.zst"))
    error = _refused(settings, Target(), directory)
    assert f"{damaged.backup_id} cannot be used: its object base.tar.zst is damaged" in error.message
    assert "--backup ID" in error.hint
    assert restore(settings, Target(), directory, base=past.full.backup_id).promoted


def test_a_base_object_that_is_gone_is_named(past: Past, directory: Path) -> None:
    settings = copy_of_store(past)
    delete_raw(settings.store, key_ending(settings.store, f"{past.full.backup_id}/base.tar.zst"))
    error = _refused(settings, Target(time=past.early.time), directory)
    assert f"Left out: {past.full.backup_id} is incomplete: the store has " in error.message


def test_a_damaged_wal_object_fails_the_recovery_that_needs_it_and_no_other(past: Past, directory: Path) -> None:
    settings = copy_of_store(past)
    damaged = _segment(settings, past.late.lsn)
    _damage(settings, damaged)
    error = _refused(settings, Target(lsn=past.late.lsn), directory)
    assert f"Recovery needs {Path(damaged).stem}, which cannot be used" in error.message
    # It is fetched ahead here too, and does no harm, as the target lies before it.
    assert restore(settings, Target(lsn=past.early.lsn), directory).promoted


def test_a_wal_object_missing_in_the_middle_is_named_with_how_far_one_can_get(past: Past, directory: Path) -> None:
    settings = copy_of_store(past)
    gone = _segment(settings, past.late.lsn)
    delete_raw(settings.store, gone)
    beforehand = _refused(settings, Target(lsn=past.late.lsn), directory)
    by_the_replay = _refused(settings, Target(time=past.late.time), directory)
    for error in (beforehand, by_the_replay):
        assert f"{Path(gone).stem} is missing from the archive" in error.message
        assert "up to 0/5000000" in error.message
        assert "--to-lsn 0/5000000" in error.hint


def test_a_directory_that_is_not_empty_is_refused_and_left_as_it_is(past: Past, directory: Path) -> None:
    directory.mkdir()
    (directory / "precious").write_text("data")
    with pytest.raises(RecoveryError, match="is not empty") as caught:
        restore(past.settings, Target(), directory)
    assert "Nothing in it was touched" in caught.value.detail
    assert [path.name for path in directory.iterdir()] == ["precious"]


def test_a_disk_that_is_too_small_is_noticed_beforehand(
    past: Past, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage("/")._replace(free=10 << 20)
    monkeypatch.setattr(destinations.shutil, "disk_usage", lambda _: free)
    error = _refused(past.settings, Target(), directory, DiskSpaceError)
    assert "10.5 MB are free" in error.message
    assert str(directory) in error.message


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many MiB; only root may."""
    place = directory.parent / "disk"
    place.mkdir()
    mounted = []

    def mount(size: int) -> Path:
        subprocess.run([MOUNT, "-t", "tmpfs", "-o", f"size={size}m,mode=755", "tmpfs", place], check=True)
        mounted.append(place)
        return place / "recovered"

    yield mount
    for disk in mounted:
        subprocess.run([UMOUNT, "--lazy", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("size", [12, 70])
def test_a_disk_that_becomes_full_while_files_or_wal_come_in_is_said_to_be_full(
    past: Past, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("tmi_ops.recovery.point_in_time.execution.require_room", lambda *_: {})
    directory = small_disk(size)
    error = _refused(past.settings, Target(lsn=past.late.lsn), directory, DiskSpaceError)
    assert "full" in error.message
    assert "--into" in error.hint


def test_a_file_system_that_is_full_when_a_file_is_made_is_said_to_be_full(
    past: Past, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open, opened = os.open, []

    def full_after_a_hundred(path: str, flags: int, *rest: int, **places: int) -> int:
        opened.append(path)
        if flags & os.O_CREAT and len(opened) > 100:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return really_open(path, flags, *rest, **places)

    monkeypatch.setattr(tar_stream.os, "open", full_after_a_hundred)
    assert "is full" in _refused(past.settings, Target(lsn=past.early.lsn), directory, DiskSpaceError).message


def test_a_server_killed_during_the_replay_is_an_error_not_a_result(past: Past, directory: Path) -> None:
    def kill_it() -> None:
        os.kill(int((directory / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    with pytest.raises(RecoveryError, match="The server exited during the replay") as killed:
        restore(past.settings, Target(), directory, report=Progress(after=1, then=kill_it, of="replay"))
    assert killed.value.code is Code.REPLAY_ENDED
    assert not directory.exists(), sorted(directory.rglob("*"))[:10]


@pytest.fixture
def own_s3(past: Past, directory: Path) -> Iterator[KillableS3]:
    """An S3 server that may be killed, with a copy of the past."""
    source = past.settings.store
    with killable_s3(directory.parent / "s3") as server:
        client, prefix = raw_client(server.settings), server.settings.prefix
        for key in stored_keys(source):
            found = raw_client(source).get_object(Bucket=source.bucket, Key=key)
            target = prefix + key.removeprefix(source.prefix)
            client.put_object(
                Bucket=server.settings.bucket, Key=target, Body=found["Body"].read(), Metadata=found["Metadata"]
            )
        yield server


def test_a_store_killed_in_the_middle_and_back_within_seconds_costs_nothing(
    past: Past, own_s3: KillableS3, directory: Path
) -> None:
    settings = past.settings.model_copy(update={"store": own_s3.settings})
    report = Progress(after=1, then=own_s3.die_and_come_back, of="fetch and extract")
    assert restore(settings, Target(lsn=past.late.lsn), directory, report=report).promoted


@pytest.mark.parametrize("fault", ["refuse 500", "refuse 503", "answer late", "cut answer"])
def test_a_store_that_struggles_for_a_while_costs_nothing(past: Past, directory: Path, fault: Fault) -> None:
    with faulty_proxy(past.settings.store) as proxy:
        settings = past.settings.model_copy(update={"store": proxy.settings})
        plan = plan_to(past.store, Target(lsn=past.late.lsn), settings.home / "scratch")
        struggling = open_store(settings.store, settings.environment)
        proxy.first(4, fault, lambda request: request.method == "GET")
        assert execute_recovery(settings, struggling, plan, Destination(directory), SilentReport()).promoted
    assert proxy.suffered


def test_a_store_that_stays_dead_fails_the_restore_and_leaves_nothing(
    past: Past, own_s3: KillableS3, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PATIENCE_S", 2.0)
    settings = past.settings.model_copy(update={"store": own_s3.settings})
    patient = open_store(settings.store, settings.environment)
    plan = plan_to(patient, Target(lsn=past.late.lsn), settings.home / "scratch")
    store = patient.patient(settings.store, 1)
    report = Progress(after=1, then=own_s3.kill, of="fetch and extract")
    # A small base backup may be here whole already; then it is the replay that waits for WAL in vain.
    with pytest.raises((StoreError, RecoveryError), match="could not be reached") as caught:
        execute_recovery(settings, store, plan, Destination(directory), report)
    assert caught.value.transient
    assert not directory.exists(), sorted(directory.rglob("*"))[:10]
