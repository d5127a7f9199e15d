"""The restore_command as the server calls it, and the window of prefetched WAL. Neither needs a server."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.recovery.point_in_time import spool as spool_module
from tmi_ops.recovery.point_in_time.spool import WalSpool
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.coverage import WalFile
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.stored_file import store_once
from tmi_ops_tests.raw_s3 import key_ending, write_raw

SYSTEM = "7711554964273702704"
SIZE = 1 << 20
COUNT = 12


def _segment(number: int) -> Segment:
    return Segment(1, number * SIZE, SIZE)


def _content(segment: Segment) -> bytes:
    """A segment that begins as one should, and is its own."""
    header = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, segment.start, 0, int(SYSTEM), SIZE, 8192)
    return (
        header
        + hashlib.sha256(segment.name.encode()).digest() * ((SIZE - len(header)) // 32)
        + bytes((SIZE - len(header)) % 32)
    )


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    store = open_store(store_settings, "development")
    describe_archive(store, SYSTEM, SIZE)
    for number in range(COUNT):
        segment = _segment(number)
        store_once(store, SYSTEM, segment.name, _content(segment), segment.end)
    store_once(store, SYSTEM, "00000002.history", b"1\t0/300000\tno recovery target specified\n", None)
    return store


@contextmanager
def _spooling(store: ObjectStore, directory: Path, files: list[WalFile] | None = None) -> Iterator[WalSpool]:
    wanted = [WalFile(_segment(number), _segment(number).name) for number in range(COUNT)] if files is None else files
    with WalSpool(store, SYSTEM, wanted, [2], directory / "it's a spool", ServerIdentity()) as spool:
        yield spool


def _ask(spool: WalSpool, name: str, target: Path) -> int:
    """Run the restore_command as PostgreSQL does."""
    command = spool.restore_command.replace("%f", name).replace("%p", target.name)
    return subprocess.run(["/bin/sh", "-c", command], cwd=target.parent, timeout=30, check=False).returncode


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_segments_come_in_their_order_each_as_it_was_stored(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "RECOVERYXLOG"
    with _spooling(store, tmp_path) as spool:
        for number in range(COUNT):
            assert _ask(spool, _segment(number).name, target) == 0
            assert target.read_bytes() == _content(_segment(number))
            assert spool.taken == number + 1


def test_what_the_archive_lacks_is_answered_with_one(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "RECOVERYXLOG"
    with _spooling(store, tmp_path) as spool:
        assert _ask(spool, _segment(COUNT).name, target) == 1
        assert _ask(spool, "00000003.history", target) == 1
        assert not target.exists()
        assert _ask(spool, "00000002.history", target) == 0
        assert target.read_bytes().startswith(b"1\t0/300000")
        assert spool.failure is None


def test_a_segment_may_be_asked_for_again_and_out_of_order(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "RECOVERYXLOG"
    with _spooling(store, tmp_path) as spool:
        for number in (5, 3, 5, 5, 11, 0):
            assert _ask(spool, _segment(number).name, target) == 0
            assert target.read_bytes() == _content(_segment(number))


def test_only_a_window_is_fetched_ahead(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MOST_AHEAD", 3)
    ready = tmp_path / "it's a spool" / "ready"
    with _spooling(store, tmp_path) as spool:
        _until(lambda: len(list(ready.iterdir())) == 3)
        assert _ask(spool, _segment(0).name, tmp_path / "RECOVERYXLOG") == 0
        _until(lambda: sorted(path.name for path in ready.iterdir()) == [_segment(number).name for number in (1, 2, 3)])
        time.sleep(0.1)
        assert len(list(ready.iterdir())) == 3


def test_what_belongs_to_another_history_is_zeros(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "RECOVERYXLOG"
    cut = WalFile(_segment(2), _segment(2).name, cut=_segment(2).start + 5000)
    with _spooling(store, tmp_path, [cut]) as spool:
        assert _ask(spool, cut.name, target) == 0
    assert target.read_bytes() == _content(_segment(2))[:5000] + bytes(SIZE - 5000)


def test_an_open_segment_that_became_whole_since_it_was_listed_is_taken_as_that(
    store: ObjectStore, tmp_path: Path
) -> None:
    target = tmp_path / "RECOVERYXLOG"
    with _spooling(store, tmp_path, [WalFile(_segment(1), f"{_segment(1).name}.partial")]) as spool:
        assert _ask(spool, _segment(1).name, target) == 0
    assert target.read_bytes() == _content(_segment(1))


def test_a_damaged_segment_is_never_the_end_of_the_wal(
    store: ObjectStore, store_settings: StoreSettings, tmp_path: Path
) -> None:
    write_raw(store_settings, key_ending(store_settings, f"{_segment(1).name}.zst"), b"nothing of a segment")
    target = tmp_path / "RECOVERYXLOG"
    with _spooling(store, tmp_path) as spool:
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", spool.restore_command.replace("%f", _segment(1).name).replace("%p", target.name)],
            cwd=tmp_path,
        )
        _until(lambda: spool.failure is not None)
        assert waiting.poll() is None
        assert f"Recovery needs {_segment(1).name}, which cannot be used" in str(spool.failure)
        # With a target before it, the server is told that there is none: it does not come up before its target.
        spool.to_the_end = False
        assert waiting.wait(timeout=10) == 1
        assert spool.damaged is not None
