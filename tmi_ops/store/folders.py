"""What a listing shows about the folders of backups. Pure.

A folder with a manifest is a backup; one without is incomplete. Only this module decides which names beside the objects
are documents of ours, and which of several verification results is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tmi_ops.store.manifest import BACKUP_ID, AnyManifest, Kind
from tmi_ops.store.objects import ListedObject

MANIFEST = "manifest.json"
HOLD = "hold.json"
CHECKSUMS = "SHA256SUMS"
VERIFICATION_PREFIX = "verdict-"
DRILL_PREFIX = "drill-"
# Name prefixes of what is stored beside a backup's own objects.
_BESIDE = (MANIFEST, HOLD, CHECKSUMS, VERIFICATION_PREFIX, DRILL_PREFIX)
SIGNATURE = ".minisig"
SEALED = ".age"


@dataclass(slots=True)
class Folder:
    """One backup's folder. `manifest_at` is None if it is incomplete. `verification`: key of the newest result.

    `touched_at`: when anything was last stored in it. `etags`: of the documents that are needed to judge the backup, by
    key. `parts`: the number of the backup's own objects there; None if they were not counted.
    """

    backup_id: str
    size: int = 0
    objects: int = 0
    touched_at: datetime = field(default=datetime.min.replace(tzinfo=UTC))
    manifest_at: datetime | None = None
    verification: str | None = None
    held: bool = False
    parts: int | None = None
    etags: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Its kind according to its id, which was validated before."""
        return self.backup_id.split("-", 2)[1]

    @property
    def manifest(self) -> str:
        """The key of its manifest."""
        return f"{self.kind}/{self.backup_id}/{MANIFEST}"

    def is_as(self, known: Folder | None) -> bool:
        """Whether nothing in it has changed since `known` was seen, as far as a listing shows."""
        return known is not None and self == known and all(self.etags.values())


def kind_of(backup_id: str) -> Kind | None:
    """The kind of a backup according to its id; None if this is not an id."""
    match = BACKUP_ID.fullmatch(backup_id)
    return None if match is None else match[1]  # type: ignore[return-value]


def is_verification(name: str) -> bool:
    """Whether an object of this name in a folder is a verification result; its signature and encrypted copy are not."""
    return name.startswith(VERIFICATION_PREFIX) and not name.endswith((SIGNATURE, SEALED))


def lacks_parts(folder: Folder, manifest: AnyManifest) -> bool:
    """Whether objects that the manifest names are gone, removed by a person or a lifecycle rule."""
    return folder.parts is not None and folder.parts < len(manifest.objects)


def older_than(
    first: str, known: Iterable[str], names: Iterable[str] | None, doubted: Iterable[str]
) -> tuple[set[str], set[str]]:
    """Split the folders older than `first` into those trusted from the catalogue and those to read. Pure.

    Args:
        known: those in the catalogue.
        names: those in the store; None if they were not listed.
        doubted: those with an announced change.
    """
    older = {one for one in known if one < first}
    announced = {one for one in doubted if one < first}
    if names is None:
        return older - announced, announced
    there = {name for name in names if kind_of(name) is not None and name < first}
    unknown = (there - older) | (announced & there)
    return (older & there) - unknown, unknown


def folders_of(listed: Iterable[ListedObject]) -> Iterator[Folder]:
    """The folders of backups; other objects are ignored. A listing is sorted, so each folder's objects are adjacent."""
    folder: Folder | None = None
    found: dict[str, str] = {}
    for item in listed:
        kind, _, below = item.key.partition("/")
        backup_id, _, name = below.partition("/")
        if not name or kind_of(backup_id) != kind:
            continue
        if folder is None or folder.backup_id != backup_id:
            if folder is not None:
                yield _with_documents(folder, found)
            folder, found = Folder(backup_id, parts=0), {}
        folder.size += item.size
        folder.objects += 1
        folder.touched_at = max(folder.touched_at, item.modified)
        folder.held |= name == HOLD
        folder.parts = (folder.parts or 0) + (not name.startswith(_BESIDE))
        if name == MANIFEST:
            folder.manifest_at = item.modified
        elif is_verification(name):
            folder.verification = max(folder.verification or "", item.key)
        if name.startswith((MANIFEST, HOLD, VERIFICATION_PREFIX)):
            found[item.key] = item.etag
    if folder is not None:
        yield _with_documents(folder, found)


def _with_documents(folder: Folder, found: dict[str, str]) -> Folder:
    """Add the etags of manifest, hold, newest verification result, their signatures and encrypted copies."""
    beginning = f"{kind_of(folder.backup_id)}/{folder.backup_id}/"
    wanted = [f"{beginning}{MANIFEST}", f"{beginning}{HOLD}", f"{beginning}{HOLD}{SEALED}"]
    wanted += [folder.verification, f"{folder.verification}{SEALED}"] if folder.verification else []
    keys = [f"{key}{ending}" for key in wanted for ending in ("", SIGNATURE)]
    folder.etags = {key: found[key] for key in keys if key in found}
    return folder
