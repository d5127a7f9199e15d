"""The catalogue as one object, `catalogue/backups.zst`: folders of backups, and their documents, byte for byte.

It is derived, never authoritative: it holds each document with its own signature, which is checked as if the document
had been read from its own key. So the catalogue cannot call a backup verified that no prover signed as such. It could
omit something, which a listing of names detects (`overview.py`). An older catalogue put in place of a newer one, which
would hide later results, is detected by the newest that this machine has seen. `tmi-ops catalogue rebuild` writes it
again.

Format: zstd of one line of JSON followed by the documents, in the order of the line's `documents`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.store.folders import Folder, kind_of
from tmi_ops.store.manifest import KINDS
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.packed import Limits, pack, read_packed, unpack, write_packed
from tmi_ops.store.seen import catalogue_went_back

CATALOGUE_FOLDER = "catalogue"
DRILL_FOLDER = "drills"
CATALOGUE = f"{CATALOGUE_FOLDER}/backups.zst"
FORMAT_VERSION = 1
# Five thousand backups take some megabytes; a larger object was not written by us.
LIMITS = Limits(stored=256 << 20, plain=1 << 30)
# The manifest of many thousand files is not copied into it, but read from its own key.
LARGEST_DOCUMENT = 256 << 10
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Document:
    """A small object as stored: from `start` to `end` of `body`, which may hold thousands."""

    etag: str
    body: bytes = field(repr=False)
    start: int = 0
    end: int | None = None

    @property
    def data(self) -> bytes:
        return self.body[self.start : self.end]

    @property
    def size(self) -> int:
        return (len(self.body) if self.end is None else self.end) - self.start


@dataclass(frozen=True)
class StoredCatalogue:
    """The content of the catalogue. `told`: the announcements of changes that it already includes.

    `drills`: keys of the newest drills' evidence, newest first; None if not read yet. `apart`: keys of these drills'
    large documents, which are not copied into it. `made_at`: later than that of the catalogue it replaced, whatever the
    clocks say. `states`: cached digests of its folders; see `Overview.state_of`.
    """

    folders: Mapping[str, Folder] = field(default_factory=dict)
    documents: Mapping[str, Document] = field(default_factory=dict)
    told: frozenset[str] = frozenset()
    drills: tuple[str, ...] | None = None
    made_at: datetime = NEVER
    apart: frozenset[str] = frozenset()
    states: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def by_kind(self) -> Mapping[str, Mapping[str, Folder]]:
        """The folders of each kind, by id."""
        found: dict[str, dict[str, Folder]] = {kind: {} for kind in KINDS}
        for one, folder in self.folders.items():
            found[folder.kind][one] = folder
        return found

    def besides(self, kinds: Sequence[str]) -> dict[str, Folder]:
        """The folders of all other kinds, by id."""
        return {one: folder for kind in KINDS if kind not in kinds for one, folder in self.by_kind[kind].items()}

    @cached_property
    def evidence(self) -> Mapping[str, Document]:
        """The documents of drills."""
        return {key: one for key, one in self.documents.items() if is_drill(key)}


def is_drill(key: str) -> bool:
    """Whether an object belongs to the evidence of a drill."""
    return key.startswith(f"{DRILL_FOLDER}/")


class _Folder(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)

    id: str
    size: int
    objects: int
    touched_at: AwareDatetime
    manifest_at: AwareDatetime | None
    verification: str | None = Field(alias="verdict")
    held: bool
    parts: int | None = None


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format_version: int
    made_at: AwareDatetime
    told: list[str]
    drills: list[str] | None
    apart: list[str] = []
    folders: list[_Folder]
    documents: list[tuple[str, str, int]]


def encoded(catalogue: StoredCatalogue) -> bytes:
    """The bytes to store."""
    header = _Header(
        format_version=FORMAT_VERSION,
        made_at=catalogue.made_at,
        told=sorted(catalogue.told),
        drills=None if catalogue.drills is None else list(catalogue.drills),
        apart=sorted(catalogue.apart),
        folders=[
            _Folder(
                id=folder.backup_id,
                size=folder.size,
                objects=folder.objects,
                touched_at=folder.touched_at,
                manifest_at=folder.manifest_at,
                verification=folder.verification,
                held=folder.held,
                parts=folder.parts,
            )
            for folder in catalogue.folders.values()
        ],
        documents=[(key, document.etag, document.size) for key, document in catalogue.documents.items()],
    )
    body = b"".join(document.data for document in catalogue.documents.values())
    return pack(header.model_dump_json().encode() + b"\n" + body)


def decoded(data: bytes) -> StoredCatalogue | None:
    """None if it cannot be parsed; it is then written again."""
    plain = unpack(data, LIMITS.plain)
    return None if plain is None else _understood(plain)


def _understood(plain: bytes) -> StoredCatalogue | None:
    at = plain.find(b"\n") + 1
    try:
        header = _Header.model_validate_json(plain[:at])
    except (ValidationError, MemoryError):
        return None
    folders: dict[str, Folder] = {}
    for one in header.folders:
        kind = kind_of(one.id)
        if kind is None or not (one.verification or f"{kind}/{one.id}/").startswith(f"{kind}/{one.id}/"):
            return None
        folders[one.id] = Folder(
            one.id, one.size, one.objects, one.touched_at, one.manifest_at, one.verification, one.held, one.parts
        )
    documents: dict[str, Document] = {}
    for key, etag, length in header.documents:
        if length < 0 or at + length > len(plain):
            return None
        documents[key] = Document(etag, plain, at, at + length)
        at += length
        owner = folders.get(key.split("/")[1]) if "/" in key else None
        if owner is not None:
            owner.etags[key] = etag
    if header.format_version != FORMAT_VERSION or at != len(plain):
        return None
    drills = None if header.drills is None else tuple(header.drills)
    return StoredCatalogue(folders, documents, frozenset(header.told), drills, header.made_at, frozenset(header.apart))


def read_stored(store: ObjectStore, etag: str) -> tuple[StoredCatalogue, str] | None:
    """The stored catalogue and its ETag; None if there is no trusted one.

    Args:
        etag: from a listing.

    Raises:
        StoreError: the store failed.
    """
    found = read_packed(store, CATALOGUE, etag, LIMITS, _understood)
    return None if found is None or catalogue_went_back(store, found[0].made_at) else found


def write_stored(store: ObjectStore, catalogue: StoredCatalogue, etag: str | None) -> str:
    """Replace the catalogue. `etag` is that of the catalogue this one was made from; None: there was none.

    Raises:
        ObjectExistsError: another writer replaced it meanwhile.
        UntrustedError: keys are pinned, and this host has none that may sign it.
        StoreError: the store failed, or our key may not write it.
    """
    written = write_packed(store, CATALOGUE, encoded(catalogue), etag)
    catalogue_went_back(store, catalogue.made_at)  # from now on, no older one is trusted here
    return written
