"""Fetches and extracts a base backup in one stream, several objects at once, verified by SHA-256.

Nothing is stored in between: bytes go from the store through decryption and decompression into the cluster's files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, ObjectMissingError, RecoveryError
from tmi_ops.postgres.base_backup import MANIFEST_NAME
from tmi_ops.progress import Phase, Report
from tmi_ops.recovery.point_in_time.destination import TABLESPACES
from tmi_ops.recovery.point_in_time.tar_stream import DIRECTORY_MODE, disk_failed, extract
from tmi_ops.store.backup_documents import backup_folder, require_encrypted
from tmi_ops.store.manifest import BaseManifest, StoredObject
from tmi_ops.store.objects import ObjectStore

# Each stream prefetches up to 56 MiB and keeps one core busy.
STREAMS = 2
TABLESPACE_MAP = "tablespace_map"


class UnusableBaseError(RecoveryError):
    """A base backup is damaged or incomplete. `backup_id`: the damaged one; if unknown, the last of the chain."""

    default_code = Code.BASE_UNUSABLE

    def __init__(self, backup_id: str, message: str, *, detail: str, hint: str) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.backup_id = backup_id


@dataclass(frozen=True)
class Layout:
    """Where one backup is extracted: the data directory, and its tablespaces by oid, except in-place ones.

    `limits`: upper limit in bytes for the files of an object, by object name; unlimited if absent.
    """

    base: BaseManifest
    directory: Path
    tablespaces: dict[str, Path]
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Extracted:
    """Bytes written, and the wall-clock time split into waiting for bytes and writing files, in seconds."""

    size: int
    fetch_seconds: float
    extract_seconds: float


def extract_bases(store: ObjectStore, layouts: list[Layout], report: Report) -> Extracted:
    """Fetch and extract the backups of a chain.

    Raises:
        UnusableBaseError: an object is missing or damaged; the message names backup and object.
        DiskSpaceError: the disk is full.
        StoreError: the store failed, or the private key is missing or the wrong one.
    """
    for layout in layouts:
        require_encrypted(store, layout.base)
    tasks = [task for layout in layouts for task in _tasks(layout)]
    clock = time.monotonic()
    spent = _Spent()
    with (
        report.phase("fetch and extract", total=sum(task.item.plain_size for task in tasks)) as phase,
        ThreadPoolExecutor(STREAMS, thread_name_prefix="extract") as pool,
    ):
        futures = [pool.submit(_run, store, task, phase, spent) for task in sorted(tasks, key=_largest_first)]
        try:
            size = sum(future.result() for future in futures)
        except BaseException:
            spent.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for layout in layouts:
        _link_tablespaces(layout)
    return spent.divided(size, time.monotonic() - clock)


def use_new_places(directory: Path) -> None:
    """Make the server use the existing links instead of recreating those of the backed-up server."""
    (directory / TABLESPACE_MAP).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Task:
    base: BaseManifest
    item: StoredObject
    target: Path
    limit: int | None

    @property
    def what(self) -> str:
        return f"{self.base.backup_id}/{self.item.name}"


def _largest_first(task: _Task) -> int:
    return -task.item.size


def _tasks(layout: Layout) -> Iterator[_Task]:
    targets = {
        item.object_name: layout.tablespaces.get(item.oid, layout.directory / TABLESPACES / item.oid)
        for item in layout.base.tablespaces
    }
    for item in layout.base.objects:
        target = targets.get(item.name, layout.directory)
        yield _Task(layout.base, item, target, layout.limits.get(item.name))


def _run(store: ObjectStore, task: _Task, phase: Phase, spent: _Spent) -> int:
    """Extract one object; the server's manifest is copied unchanged."""
    begun = time.monotonic()
    waiting = 0.0

    def chunks() -> Iterator[bytes]:
        nonlocal waiting
        stored = store.download(f"{backup_folder(task.base.backup_id)}/{task.item.name}", task.item)
        while not spent.stop.is_set():
            asked = time.monotonic()
            chunk = next(stored, None)
            waiting += time.monotonic() - asked
            if chunk is None:
                return
            phase.advance(len(chunk))
            yield chunk

    try:
        task.target.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if task.item.name == MANIFEST_NAME:
            return _keep(chunks(), task.target / MANIFEST_NAME)
        return extract(chunks(), task.target, task.what, limit=task.limit)
    except (IntegrityError, ObjectMissingError) as error:
        if spent.stop.is_set():
            return 0
        raise _unusable(task, error) from error
    finally:
        spent.add(waiting, time.monotonic() - begun)


def _keep(chunks: Iterator[bytes], path: Path) -> int:
    try:
        with path.open("wb") as file:
            return sum(file.write(chunk) for chunk in chunks)
    except OSError as error:
        raise disk_failed(error, path) from error


def _link_tablespaces(layout: Layout) -> None:
    for oid, place in layout.tablespaces.items():
        place.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        links = layout.directory / TABLESPACES
        links.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        (links / oid).symlink_to(place.absolute())


def _unusable(task: _Task, error: IntegrityError | ObjectMissingError) -> UnusableBaseError:
    what = "is missing from the store" if isinstance(error, ObjectMissingError) else "is damaged"
    return UnusableBaseError(
        task.base.backup_id,
        f"The base backup {task.base.backup_id} cannot be used: its object {task.item.name} {what}. {error.message}",
        detail="What was restored so far was removed again; the store was not changed.",
        hint="use another base backup: --backup ID (`tmi-ops backups`); or, if the bucket keeps versions, restore an "
        "earlier version of the object",
    )


class _Spent:
    """How long the streams ran and waited for bytes, and the signal for them to stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0.0
        self._running = 0.0

    def add(self, waiting: float, running: float) -> None:
        with self._lock:
            self._waiting += waiting
            self._running += running

    def divided(self, size: int, wall: float) -> Extracted:
        share = self._waiting / self._running if self._running else 0.0
        return Extracted(size, wall * share, wall * (1 - share))
