"""Downloads a backup's objects, and verifies every byte against the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.backup.dump import dump_object_name
from tmi_ops.progress import Phase, Report
from tmi_ops.store.backup_documents import backup_folder, require_encrypted
from tmi_ops.store.manifest import Manifest, StoredObject
from tmi_ops.store.objects import ObjectStore

# The directory format has many small objects; each download prefetches on its own.
FETCHES_AT_ONCE = 4
# Index builds need sort files beside the data, and the WAL of the load is kept until a checkpoint.
RESTORED_SIZE_FACTOR = 1.5


@dataclass(frozen=True)
class FetchedBackup:
    """A backup's objects on local disk, decrypted and verified."""

    manifest: Manifest
    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    @property
    def dump(self) -> Path:
        """The dump itself: a file, or the directory of the `directory` format."""
        return self.directory / dump_object_name(self.manifest.format)


def disk_needed(manifest: Manifest) -> int:
    """Bytes of local disk that a restore of this backup may need."""
    fetched = sum(item.plain_size for item in manifest.objects)
    return fetched + int(manifest.database_size * RESTORED_SIZE_FACTOR)


def fetch_backup(
    store: ObjectStore, manifest: Manifest, directory: Path, report: Report, *, only: Sequence[str] | None = None
) -> FetchedBackup:
    """Download a backup into `directory`.

    Args:
        only: names of the objects to fetch; None for all.

    Raises:
        ObjectMissingError, IntegrityError: an object is missing, truncated or changed.
        UntrustedError: the backup is not encrypted, but backups in this store must be.
    """
    require_encrypted(store, manifest)
    wanted = [item for item in manifest.objects if only is None or item.name in only]
    folder = backup_folder(manifest.backup_id)
    with (
        report.phase("fetch", total=sum(item.plain_size for item in wanted)) as phase,
        ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch") as pool,
    ):
        fetches = [pool.submit(_fetch, store, f"{folder}/{item.name}", item, directory, phase) for item in wanted]
        for fetch in fetches:
            try:
                fetch.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return FetchedBackup(manifest, directory)


def _fetch(store: ObjectStore, key: str, item: StoredObject, directory: Path, phase: Phase) -> None:
    target = directory / item.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as output:
        for chunk in store.download(key, item):
            output.write(chunk)
            phase.advance(len(chunk))
