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

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.described import read_described, write_described
from tmi_ops.store.folders import (
    CHECKSUMS,
    MANIFEST,
    SEALED,
    VERIFICATION_PREFIX,
    Folder,
    is_verification,
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
    in_clear,
    parse_listed,
    parse_manifest,
    parse_verification,
    to_json,
    verification_in_clear,
)
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import Overview, changing, overview
from tmi_ops.store.seen import notice
from tmi_ops.store.signed import read_document, write_once
from tmi_ops.store.small_objects import sealed, unsealed
from tmi_ops.store.trust import CLOCK_TOLERANCE, TrustedKey, UntrustedError

LATEST = "latest"
_VERIFICATION_NAME = re.compile(rf"{VERIFICATION_PREFIX}(\d{{8}}T\d{{12}}Z)-[0-9a-f]{{4}}\.json")


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


def new_backup_id(kind: Kind, now: datetime) -> str:
    """A name that sorts by time: `20261123T020000Z-logical-7f3a`. `now` must be timezone-aware."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{kind}-{secrets.token_hex(2)}"


def backup_folder(backup_id: str) -> str:
    """The key of a backup's folder, without a trailing slash.

    Raises:
        StoreError: this is not a backup id.
    """
    match = BACKUP_ID.fullmatch(backup_id)
    if match is None:
        raise StoreError(
            f"{backup_id!r} is not a backup id.", hint="list the ids with `tmi-ops backups`", code=Code.NO_SUCH_BACKUP
        )
    return f"{match[1]}/{backup_id}"


def commit_manifest(store: ObjectStore, manifest: AnyManifest) -> None:
    """Commit a backup. Call it last, when every object is stored.

    In an encrypted store the manifest omits facts about the content; the whole is stored encrypted beside it
    (`whole_manifest`).

    Raises:
        ObjectExistsError: the id is taken; the existing manifest was left unchanged.
    """
    folder = backup_folder(manifest.backup_id)
    lines = [f"{item.sha256}  {item.name}\n" for item in manifest.objects]
    _write_once(store, f"{folder}/{CHECKSUMS}", "".join(lines).encode())
    data = to_json(in_clear(manifest) if store.recipients else manifest)
    if store.recipients:
        write_once(store, f"{folder}/{MANIFEST}{SEALED}", sealed(store, to_json(manifest)), "backup")
    with changing(store, manifest.backup_id):
        write_once(store, f"{folder}/{MANIFEST}", data, "backup")
    manifest.remember_stored(data)


@contextmanager
def discarded_on_failure(store: ObjectStore, backup_id: str) -> Iterator[None]:
    """Remove what a backup has stored so far if the block fails, Ctrl-C included, and raise the failure again.

    If the store itself has failed, the remaining objects have no manifest, so they are no backup, and are swept later.
    """
    try:
        yield
    except BaseException as failure:
        try:
            discard(store, backup_id)
        except StoreError as error:
            failure.add_note(f"Objects of {backup_id} could not be removed: {error.message}")
        raise


def read_manifest(store: ObjectStore, backup_id: str) -> AnyManifest:
    """Read the manifest of one backup.

    Raises:
        ObjectMissingError: the backup does not exist.
        StoreError: the manifest was written by a newer release, or is broken.
    """
    return _manifest(store, backup_id, parse_manifest)


def read_listed_manifest(store: ObjectStore, backup_id: str) -> AnyManifest:
    """As `read_manifest`, without the facts about single tables and sequences.

    Raises:
        ObjectMissingError, StoreError: as `read_manifest`.
    """
    return _manifest(store, backup_id, parse_listed)


def _manifest(store: ObjectStore, backup_id: str, parse: Callable[[bytes, str], AnyManifest]) -> AnyManifest:
    key = f"{backup_folder(backup_id)}/{MANIFEST}"
    manifest = parse(read_document(store, key, "backup"), key)
    if manifest.backup_id != backup_id or manifest.kind != kind_of(backup_id):
        raise BrokenRecordError(
            f"The manifest {key} belongs to another backup, {manifest.backup_id} ({manifest.kind}).",
            hint="find out who copied it there; it does not describe the objects beside it",
            code=Code.MISPLACED,
        )
    _require_own(store, manifest, key)
    return manifest


def require_encrypted(store: ObjectStore, manifest: AnyManifest) -> None:
    """Check that a backup is encrypted if keys are pinned and the store has recipients.

    Raises:
        UntrustedError: it is not.
    """
    if store.trust.is_pinned and store.recipients and not manifest.encrypted:
        raise UntrustedError(
            f"{manifest.backup_id} is not encrypted, but TMI_OPS_AGE_RECIPIENTS says that every backup is.",
            detail="It was not used and not changed.",
            hint="find out who took it; if it was taken before encryption was set up, unset TMI_OPS_AGE_RECIPIENTS "
            "for this command",
            code=Code.NOT_ENCRYPTED,
        )


def whole_manifest(store: ObjectStore, manifest: Manifest) -> Manifest:
    """The manifest with its facts about the content, if they are encrypted and this host has the private key.

    Raises:
        UntrustedError: the encrypted manifest belongs to something else.
        StoreError: the store failed, or the manifest cannot be decrypted.
    """
    key = f"{backup_folder(manifest.backup_id)}/{MANIFEST}{SEALED}"
    if store.identity_file is None or not manifest.recipients:
        return manifest
    try:
        whole = parse_manifest(unsealed(store, key, read_document(store, key, "backup")), key)
    except ObjectMissingError:
        return manifest
    if not isinstance(whole, Manifest) or in_clear(whole).model_dump() != manifest.model_dump():
        raise UntrustedError(
            f"{key} does not match the manifest beside it.", hint="find out who put it there", code=Code.MISPLACED
        )
    whole.remember_stored_as(manifest)
    return whole


def read_newest_verification(store: ObjectStore, manifest: AnyManifest, keys: Iterable[str]) -> Verification | None:
    """The result of a backup's newest verification; None if it was never verified.

    Args:
        keys: of objects beside the backup; other objects than verification results are ignored. Their names begin with
            their time.

    Raises:
        BrokenRecordError: the result cannot be read, was renamed or copied, or, if keys are pinned, was not signed by a
            trusted prover for this manifest. Older results are not consulted then.
    """
    newest = max((key for key in keys if is_verification(key.rpartition("/")[2])), default=None)
    return None if newest is None else _read_verification(store, manifest, newest)


def record_verification(store: ObjectStore, verification: Verification) -> None:
    """Record the result of a verification beside the backup. Results accumulate; none is replaced."""
    name = f"{VERIFICATION_PREFIX}{_verification_time(verification)}-{secrets.token_hex(2)}.json"
    key = f"{backup_folder(verification.backup_id)}/{name}"
    with changing(store, verification.backup_id):
        write_described(store, key, to_json(verification_in_clear(verification)), to_json(verification), "proof")


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
        newest = next((backup_id for backup_id in newest_first if _is_committed(store, backup_id)), None)
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
    fitting = [backup_id for backup_id in fitting if _is_committed(store, backup_id)]
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


def discard(store: ObjectStore, backup_id: str) -> None:
    """Remove an uncommitted backup: its unfinished uploads and its objects. May be repeated.

    Raises:
        StoreError: it has a manifest, so it is a backup; nothing was deleted.
    """
    folder = f"{backup_folder(backup_id)}/"
    if _is_committed(store, backup_id):
        raise StoreError(
            f"{backup_id} has a manifest: it is a complete backup, not an unfinished one.",
            detail="Nothing was deleted.",
            hint="leave its removal to `tmi-ops prune`",
        )
    store.abort_stale_uploads(folder, older_than=timedelta(0))
    store.delete(item.key for item in store.list_objects(folder))


def _write_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Like `write_once`, but accepts an existing object with the same bytes."""
    try:
        write_once(store, key, data, "backup")
    except ObjectExistsError:
        if store.get_bytes(key) != data:
            raise


def _folder_ids(store: ObjectStore, kinds: Sequence[Kind]) -> list[str]:
    """Ids of all folders, with or without manifest; folders of other names are ignored."""
    return [name for kind in kinds for name in store.list_folders(kind) if BACKUP_ID.fullmatch(name)]


def _is_committed(store: ObjectStore, backup_id: str) -> bool:
    try:
        store.size(f"{backup_folder(backup_id)}/{MANIFEST}")
    except ObjectMissingError:
        return False
    return True


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


def _require_own(store: ObjectStore, manifest: AnyManifest, key: str) -> None:
    """Check that the manifest belongs to this environment and is not from the future, if keys are pinned."""
    if not store.trust.is_pinned:
        return
    if manifest.environment != store.trust.environment:
        raise UntrustedError(
            f"The manifest {key} is of the environment {manifest.environment!r}, not of {store.trust.environment!r}.",
            hint="find out who copied it there; to restore it, set TMI_ENV to its own environment",
            code=Code.MISPLACED,
        )
    taken = datetime.strptime(manifest.backup_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    now = datetime.now(UTC)
    if taken > now + CLOCK_TOLERANCE:
        raise UntrustedError(
            f"The backup {manifest.backup_id} has a time in the future: this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC.",
            hint="correct this machine's clock; if it is right, find out who wrote the backup",
        )


def _read_verification(store: ObjectStore, manifest: AnyManifest, key: str) -> Verification:
    verification = parse_verification(read_described(store, key, "proof"), key)
    name = key.rpartition("/")[2]
    match = _VERIFICATION_NAME.fullmatch(name)
    if verification.backup_id != manifest.backup_id or match is None or match[1] != _verification_time(verification):
        raise UntrustedError(
            f"The verification result {key} was copied or renamed: its content is of {verification.backup_id}, "
            f"verified at {verification.verified_at:%Y-%m-%d %H:%M:%S} UTC.",
            hint=f"find out who put it there, remove it, then run `tmi-ops verify {manifest.backup_id}`",
            code=Code.MISPLACED,
        )
    if store.trust.is_pinned and verification.manifest_sha256 != manifest.stored_sha256:
        raise UntrustedError(
            f"The verification result {key} belongs to another manifest of this backup.",
            hint=f"verify the backup as it is now: `tmi-ops verify {manifest.backup_id}`",
            code=Code.MISPLACED,
        )
    return verification


def _verification_time(verification: Verification) -> str:
    return f"{verification.verified_at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}"


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
