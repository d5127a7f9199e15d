"""The catalogue: which backups exist. The store is its only source.

Layout below an environment's root::

    RESTORE.md
    <kind>/<backup id>/manifest.json              written last, once, never changed: it commits the backup
    <kind>/<backup id>/<objects>                  as the manifest names them
    <kind>/<backup id>/SHA256SUMS                 the manifest's checksums for `sha256sum -c`
    <kind>/<backup id>/verdict-<time>-<4 hex>.json    one per verification

and, if there is a signing key, each document's signature beside it as `<document>.minisig`.

The kinds are `logical` (one database, by pg_dump) and `base` (the files of a whole cluster).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, ObjectMissingError, StoreError
from tmi_ops.store.backup_documents import (
    is_committed,
    read_listed_manifest,
    read_manifest,
    read_newest_verification,
)
from tmi_ops.store.folders import (
    Folder,
    kind_of,
    lacks_parts,
)
from tmi_ops.store.manifest import (
    BACKUP_ID,
    KINDS,
    AnyManifest,
    BrokenRecordError,
    Kind,
    Manifest,
    Verification,
)
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import Overview, overview
from tmi_ops.store.seen import notice
from tmi_ops.store.trust import TrustedKey

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """An existing backup and the result of its newest verification; None if it was never verified.

    The manifest is without its facts about single tables and sequences; `read_manifest` returns it whole.
    """

    manifest: AnyManifest
    verification: Verification | None

    @property
    def verified(self) -> bool:
        return self.verification is not None and self.verification.passed

    @property
    def failed(self) -> bool:
        """Whether its newest verification failed."""
        return self.verification is not None and not self.verification.passed


# Catalogue entries that this process has read, by the keys pinned at the time and by the documents' bytes.
_ENTRIES: dict[tuple[str, tuple[TrustedKey, ...]], dict[bytes, CatalogueEntry]] = {}
# Each takes some kilobytes. If one environment has more, most of them are of documents replaced since.
_MOST_ENTRIES = 1 << 15


def list_backups(
    store: ObjectStore, on_broken: Callable[[StoreError], object] | None = None, *, kinds: Sequence[Kind] = KINDS
) -> list[CatalogueEntry]:
    """The existing backups, newest first. A folder without a manifest is not a backup.

    Args:
        kinds: the kinds to list, all by default.
        on_broken: called with each error: a manifest or verification result that cannot be read, or a store that went
            back to an older state; the other backups are listed. The caller must then show these errors. Without it the
            listing is complete or fails.

    Raises:
        StoreError: the store failed; or, without `on_broken`, for any of these errors; the message names them all.
    """
    broken: list[StoreError] = []
    view = overview(store, kinds)
    found = []
    for entry, bad in read_entries(store, view, view.committed):
        found += [entry] if entry is not None else []
        broken += [bad] if bad is not None else []
    ids = [entry.manifest.backup_id for entry in found]
    broken += notice(store, {kind: [one for one in ids if kind_of(one) == kind] for kind in kinds})
    if broken and on_broken is None:
        raise _catalogue_broken(broken)
    for error in broken:
        if on_broken is not None:
            on_broken(error)
    return sorted(found, key=lambda entry: entry.manifest.backup_id, reverse=True)


def find_backup(store: ObjectStore, name: str, database: str | None = None) -> Manifest:
    """The logical backup that `name` refers to: `latest`, an id, or a unique prefix of an id.

    Args:
        database: whose newest backup `latest` means. If it has none and all backups are of one other database, the
            newest of that one.

    Raises:
        StoreError: none or several match, the match is a base backup, the store went back to an older state, or the
            newest backup's manifest is broken (an older one must be named).
    """
    found = _find(store, name, database)
    if not isinstance(found, Manifest):
        raise StoreError(
            f"{found.backup_id} is a base backup: it contains the files of a cluster, not a dump of one database.",
            hint="restore the cluster with `tmi-ops restore --latest --into DIRECTORY` (or --to-time, --to-lsn, "
            "--to-name), or name a logical backup (`tmi-ops backups`)",
            code=Code.NO_SUCH_BACKUP,
        )
    return found


def _find(store: ObjectStore, name: str, database: str | None) -> AnyManifest:
    if BACKUP_ID.fullmatch(name):
        return read_manifest(store, name)
    if name == LATEST:
        newest_first = sorted(_folder_ids(store, ["logical"]), reverse=True)
        newest = next((backup_id for backup_id in newest_first if is_committed(store, backup_id)), None)
        if newest is None:
            raise StoreError(
                "There is no logical backup yet.",
                hint="take one: `tmi-ops backup logical`",
                code=Code.NO_SUCH_BACKUP,
            )
        manifest = read_manifest(store, newest)
        for lost in notice(store, {"logical": [newest]}):
            raise lost
        return manifest if database in (None, _database_of(manifest)) else _newest_of(store, database, manifest)
    fitting = [backup_id for backup_id in _folder_ids(store, KINDS) if backup_id.startswith(name)]
    fitting = [backup_id for backup_id in fitting if is_committed(store, backup_id)]
    if len(fitting) == 1:
        return read_manifest(store, fitting[0])
    if not fitting:
        raise StoreError(
            f"No backup id begins with {name!r}.", hint="list the ids with `tmi-ops backups`", code=Code.NO_SUCH_BACKUP
        )
    raise StoreError(
        f"{len(fitting)} backup ids begin with {name!r}: {', '.join(sorted(fitting))}.",
        hint="give more characters of the id",
        code=Code.NO_SUCH_BACKUP,
    )


def _newest_of(store: ObjectStore, database: str | None, newest: AnyManifest) -> AnyManifest:
    """The newest backup of a database, if the newest of all belongs to another database."""
    newest_first = [entry.manifest for entry in list_backups(store, kinds=("logical",))]
    own = next((one for one in newest_first if _database_of(one) == database), None)
    others = sorted({_database_of(one) for one in newest_first})
    if own is None and len(others) > 1:
        raise StoreError(
            f"There is no logical backup of database {database}, only of {', '.join(others)}.",
            hint="name a backup by its id (`tmi-ops backups`), or another database (POSTGRES_DB)",
            code=Code.NO_SUCH_BACKUP,
        )
    return newest if own is None else read_manifest(store, own.backup_id)


def _database_of(manifest: AnyManifest) -> str:
    return manifest.database if isinstance(manifest, Manifest) else ""


def _folder_ids(store: ObjectStore, kinds: Sequence[Kind]) -> list[str]:
    """Ids of all folders, with or without manifest; folders of other names are ignored."""
    return [name for kind in kinds for name in store.list_folders(kind) if BACKUP_ID.fullmatch(name)]


def read_entries(
    store: ObjectStore, view: Overview, folders: Iterable[Folder]
) -> Iterator[tuple[CatalogueEntry | None, StoreError | None]]:
    """The backups in these folders, each with an error if part of it cannot be read; None if it no longer exists.

    Documents with the same bytes and the same pinned keys are not parsed again.

    Raises:
        StoreError: the store failed.
    """
    made = _ENTRIES.setdefault((store.trust.environment, store.trust.trusted), {})
    over = view.over(store)
    for folder in folders:
        place = view.state_of(folder) if store.identity_file is None else None
        known = None if place is None else made.get(place)
        if known is not None:
            yield known, None
            continue
        entry, error = _read_entry(over, folder)
        if place is not None and entry is not None and error is None:
            if len(made) >= _MOST_ENTRIES:
                made.clear()
            made[place] = entry
        yield entry, error


def _read_entry(store: ObjectStore, folder: Folder) -> tuple[CatalogueEntry | None, StoreError | None]:
    try:
        manifest = read_listed_manifest(store, folder.backup_id)
    except ObjectMissingError:
        return None, None
    except (BrokenRecordError, IntegrityError) as error:
        return None, error
    if lacks_parts(folder, manifest):
        return None, _incomplete(manifest, folder)
    keys = [] if folder.verification is None else [folder.verification]
    try:
        return CatalogueEntry(manifest, read_newest_verification(store, manifest, keys)), None
    except (BrokenRecordError, IntegrityError) as error:
        return CatalogueEntry(manifest, None), error


def _incomplete(manifest: AnyManifest, folder: Folder) -> BrokenRecordError:
    return BrokenRecordError(
        f"{manifest.backup_id} is incomplete: the store has {folder.parts} of its {len(manifest.objects)} objects.",
        detail="The remaining objects were not changed.",
        hint="find out who or which lifecycle rule removed the others; restore their old versions if the bucket keeps "
        "versions, or use another backup: `tmi-ops backups`",
        code=Code.BACKUP_INCOMPLETE,
    )


def _catalogue_broken(broken: list[StoreError]) -> StoreError:
    return StoreError(
        f"The catalogue could not be read completely: {' '.join(error.message for error in broken)}",
        detail="Nothing was changed. The other backups are not affected.",
        hint="list the other backups with `tmi-ops backups`",
    )
