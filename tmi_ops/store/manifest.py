"""The store's own documents: a backup's manifest, and the result of a verification. Everything else is bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError

FORMAT_VERSION = 1

Kind = Literal["logical", "base"]
Format = Literal["custom", "directory", "plain", "schema-only"]
Outcome = Literal["proven", "failed"]
# What a table's digest covers: each row's text, summed by SQL on the server; or its rows as COPY writes them.
DigestMethod = Literal["record", "copy"]

KINDS: tuple[Kind, ...] = get_args(Kind)
BACKUP_ID = re.compile(rf"\d{{8}}T\d{{6}}Z-({'|'.join(KINDS)})-[0-9a-f]{{4}}")
# The largest object in S3, 5 TiB; as an unsigned number it also fits PostgreSQL's type for byte counts.
_LARGEST_OBJECT = 5 << 40
# Names of what tmi_ops itself stores beside a backup's objects.
_OWN_NAMES = re.compile(
    r"manifest\.json(?:\.age)?|SHA256SUMS|hold\.json(?:\.age)?|(?:verdict|drill)-.*|.*\.minisig", re.IGNORECASE
)


def _object_name(name: str) -> str:
    if _OWN_NAMES.fullmatch(name):
        raise ValueError("the name is reserved for a document of tmi_ops")
    return name


def _power_of_two(size: int) -> int:
    if size.bit_count() != 1:
        raise ValueError("it is not a power of two")
    return size


# No name can leave a directory: each part begins with a letter or digit. One slash at most.
ObjectName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._-]{0,199})?$"),
    AfterValidator(_object_name),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=_LARGEST_OBJECT)]
Lsn = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$")]
# One path component; `backup_folder` checks that it is a backup id when it becomes a folder.
BackupId = Annotated[str, Field(pattern=r"^[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,63}$")]
# initdb's range: 1 MB to 1 GB.
SegmentSize = Annotated[int, Field(ge=1 << 20, le=1 << 30), AfterValidator(_power_of_two)]
Oid = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
SystemIdentifier = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
# No NUL and no line break: it becomes a link target and a line of tablespace_map.
Location = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,4096}$")]


class _Fact(BaseModel):
    # Ignore fields that a later release adds within the same format version.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Fact):
    """One object of a backup, as stored and as decrypted. Sizes in bytes.

    `name` is relative to the backup's folder. `sha256` and `size` are of the stored bytes, so that `sha256sum` alone
    can check them; `plain_*` equal them if the object is not encrypted.
    """

    name: ObjectName
    size: Size
    sha256: Sha256
    plain_size: Size
    plain_sha256: Sha256
    encrypted: bool

    @model_validator(mode="after")
    def _plain_is_no_larger(self) -> Self:
        """age only adds bytes, so a disk never needs to hold more than was downloaded."""
        same = (self.plain_size, self.plain_sha256) == (self.size, self.sha256)
        if self.plain_size > self.size or not (self.encrypted or same):
            raise ValueError("the plain size does not match the stored size")
        return self


class TableFingerprint(_Fact):
    """A table's content in one snapshot: its row count and a digest of its rows (`Manifest.digest_method`)."""

    rows: int
    digest: str


class SequenceRange(_Fact):
    """Bounds of a sequence's last value around the snapshot. Sequences are not part of a snapshot."""

    before: int
    after: int


class BackupManifest(_Fact):
    """The document that commits a backup: written last, never changed. Sizes in bytes, times timezone-aware."""

    format_version: Literal[1] = 1
    backup_id: BackupId
    environment: str
    server_version: str
    server_version_num: int
    started_at: AwareDatetime
    finished_at: AwareDatetime
    duration_seconds: float
    parent: BackupId | None = None
    tools: dict[str, str] = Field(default_factory=dict)
    recipients: tuple[str, ...] = ()
    tmi_ops_version: str

    _stored_sha256: str | None = PrivateAttr(None)

    if TYPE_CHECKING:
        # Each kind declares it after its own fields, so that a person who reads the JSON sees those first.
        objects: tuple[StoredObject, ...]

    @property
    def stored_sha256(self) -> str:
        """SHA-256 of the stored bytes, which a later release would serialize differently."""
        return self._stored_sha256 or hashlib.sha256(to_json(self)).hexdigest()  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        """Compare content, whether or not it was read from the store."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.backup_id)

    def remember_stored(self, data: bytes) -> None:
        """Set the bytes that the store holds as this manifest."""
        self._stored_sha256 = hashlib.sha256(data).hexdigest()

    def remember_stored_as(self, other: BackupManifest) -> None:
        """Use the stored bytes of the other manifest as those of this one."""
        self._stored_sha256 = other.stored_sha256

    @model_validator(mode="after")
    def _names_are_different(self) -> Self:
        if len({item.name for item in self.objects}) != len(self.objects):
            raise ValueError("two objects have the same name")
        return self

    @property
    def total_size(self) -> int:
        """Bytes in the store, without the manifest itself."""
        return sum(item.size for item in self.objects)

    @property
    def encrypted(self) -> bool:
        """Whether reading it requires a private key."""
        return any(item.encrypted for item in self.objects)


class Manifest(BackupManifest):
    """A logical backup: one database in one snapshot. `left_behind`: what it lacks, one sentence each."""

    kind: Literal["logical"]
    format: Format
    database: str
    database_size: Annotated[int, Field(ge=0)]
    encoding: str
    collation: str
    ctype: str
    system_identifier: SystemIdentifier | None = None
    timeline: int | None = None
    lsn: Lsn | None = None
    snapshot: str
    snapshot_at: AwareDatetime
    globals_include_passwords: bool = False
    left_behind: tuple[str, ...] = ()
    objects: tuple[StoredObject, ...]
    digest_method: DigestMethod = "record"
    fingerprints: dict[str, TableFingerprint] = Field(default_factory=dict)
    sequences: dict[str, SequenceRange] = Field(default_factory=dict)

    @property
    def taken_at(self) -> datetime:
        """The moment whose data it holds."""
        return self.snapshot_at


class Tablespace(_Fact):
    """A tablespace outside the data directory: its location on the server, and the object that holds it."""

    oid: Oid
    location: Location
    object_name: ObjectName


class BaseManifest(BackupManifest):
    """A base backup: the files of a whole cluster, and the WAL that makes them consistent.

    `chain`: the backups it builds upon, the full one first and `parent` last; empty for a full one.
    `full_because`: why a full backup was taken when an incremental one was requested.
    `newest_commit_before`: on a standby, the newest commit of its primary that it had replayed when the backup began; a
    standby's clock does not show what it holds.
    `consistent_at`: when the backup ended, by the server's clock if readable; the earliest time that can be recovered
    from it.
    `cluster_size`: what the server announced before it began, uncompressed.
    `superuser`: the cluster's bootstrap superuser, if readable. `role`: the role that took the backup.
    `from_standby`: a primary ends a backup with a whole segment, a standby in the middle of one; None if unknown.
    """

    kind: Literal["base"] = "base"
    format: Literal["full", "incremental"]
    chain: tuple[BackupId, ...] = ()
    full_because: str | None = None
    system_identifier: SystemIdentifier
    timeline: Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
    start_lsn: Lsn
    stop_lsn: Lsn
    consistent_at: AwareDatetime
    newest_commit_before: AwareDatetime | None = None
    wal_segment_size: SegmentSize
    data_checksums: bool
    cluster_size: Annotated[int, Field(ge=0)]
    tablespaces: tuple[Tablespace, ...] = ()
    role: str
    superuser: str | None = None
    from_standby: bool | None = None
    objects: tuple[StoredObject, ...]

    @property
    def taken_at(self) -> datetime:
        """The moment whose data it holds if only its own WAL is replayed."""
        return self.consistent_at


AnyManifest = Manifest | BaseManifest


class Verification(_Fact):
    """The result of one verification of one backup. `phases` maps a phase's name to its seconds.

    `but_for`: what a verified backup lacks, or what could not be checked on the server it was restored on.
    """

    format_version: Literal[1] = 1
    backup_id: BackupId
    outcome: Outcome
    verified_at: AwareDatetime
    reasons: tuple[str, ...] = ()
    but_for: tuple[str, ...] = ()
    phases: dict[str, float] = Field(default_factory=dict)
    restore_seconds: float = 0.0
    tables: int = 0
    rows: int = 0
    server_version: str
    tmi_ops_version: str
    manifest_sha256: str

    @property
    def passed(self) -> bool:
        return self.outcome == "proven"


SEALED_REASON = "The differences are in the encrypted record: read it on a host with the private key."


def verification_in_clear(verification: Verification) -> Verification:
    """Whether and when it was verified and how long that took, without facts about the content."""
    reasons = (SEALED_REASON,) if verification.reasons else ()
    but_for = tuple(SEALED_REASON for _ in verification.but_for)
    return verification.model_copy(update={"reasons": reasons, "but_for": but_for, "tables": 0, "rows": 0})


class BrokenRecordError(StoreError):
    """A manifest or verification result exists but cannot be read."""

    default_code = Code.RECORD_UNREADABLE


class _Version(_Fact):
    format_version: int


_MANIFESTS: TypeAdapter[AnyManifest] = TypeAdapter(Annotated[AnyManifest, Field(discriminator="kind")])
_VERIFICATIONS: TypeAdapter[Verification] = TypeAdapter(Verification)
_Read = TypeVar("_Read")
# Facts about each table and sequence in a logical backup's manifest.
_OF_EACH: Mapping[str, Mapping[str, type]] = {
    "fingerprints": {"rows": int, "digest": str},
    "sequences": {"before": int, "after": int},
}
_NOT_NOTED: set[str] = set()


def parse_manifest(data: bytes, where: str) -> AnyManifest:
    """Parse a manifest's JSON; `where` names it in messages.

    Raises:
        BrokenRecordError: it was written by a newer release, or is not a manifest.
    """
    manifest = _parse(_MANIFESTS, data, where, "manifest")
    manifest.remember_stored(data)
    return manifest


def parse_listed(data: bytes, where: str) -> AnyManifest:
    """As `parse_manifest`, without the facts about single tables and sequences.

    They are most of a manifest, and a listing of thousands needs none of them. They are still validated: a manifest
    with an unreadable one is broken here too.

    Raises:
        BrokenRecordError: as `parse_manifest`.
    """
    fields = _without_each(data)
    try:
        manifest = _MANIFESTS.validate_python(fields)
    except ValidationError:  # the full parser reports what is wrong
        whole = parse_manifest(data, where)
        manifest = whole.model_copy(update={name: {} for name in _OF_EACH}) if isinstance(whole, Manifest) else whole
    manifest.remember_stored(data)
    for one in (manifest, *manifest.objects):
        _forget_what_was_given(one)
    return manifest


def parse_verification(data: bytes, where: str) -> Verification:
    """Parse a verification result's JSON; `where` names it in messages.

    Raises:
        BrokenRecordError: it was written by a newer release, or is not a verification result.
    """
    verification = _parse(_VERIFICATIONS, data, where, "verification result")
    _forget_what_was_given(verification)
    return verification


def in_clear(manifest: AnyManifest) -> AnyManifest:
    """What retention and planning need, without facts about the content: no table's name, row count or digest.

    A four-digit PIN can be found from the digest of its table.
    """
    if not isinstance(manifest, Manifest) or manifest.digest_method != "copy":
        return manifest
    return manifest.model_copy(update={"fingerprints": {}, "sequences": {}, "left_behind": ()})


def to_json(fact: AnyManifest | Verification) -> bytes:
    """The JSON to store, indented because people read it in a disaster."""
    return fact.model_dump_json(indent=2).encode() + b"\n"


def _without_each(data: bytes) -> dict[str, Any] | None:
    """The fields of a manifest without those of `_OF_EACH`; None if the data is not as this release writes it."""
    try:
        fields = from_json(data)
    except ValueError:
        return None
    if type(fields) is not dict:
        return None
    told = {name: fields.pop(name, {}) for name in _OF_EACH}
    return fields if all(_are_as_written(told[name], _OF_EACH[name]) for name in _OF_EACH) else None


def _are_as_written(told: Any, types: Mapping[str, type]) -> bool:
    if type(told) is not dict:
        return False
    for one in told.values():
        if type(one) is not dict:
            return False
        for name, kind in types.items():
            if type(one.get(name)) is not kind:
                return False
    return True


def _forget_what_was_given(fact: _Fact) -> None:
    """Drop pydantic's record of which fields were given, which takes more memory than the fields."""
    object.__setattr__(fact, "__pydantic_fields_set__", _NOT_NOTED)


def _parse(model: TypeAdapter[_Read], data: bytes, where: str, called: str) -> _Read:
    try:
        return model.validate_json(data)
    except ValidationError as error:
        _require_known_version(data, where, called)
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        raise BrokenRecordError(
            f"The {called} {where} cannot be read: {field}: {first['msg']}.",
            detail="It was not changed. The objects beside it may be intact.",
            hint="use another backup (`tmi-ops backups`), or restore an old version of this object if the bucket keeps "
            "versions; RESTORE.md in the store explains how to restore without tmi_ops",
        ) from None


def _require_known_version(data: bytes, where: str, called: str) -> None:
    try:
        version = _Version.model_validate_json(data).format_version
    except ValidationError:
        return
    if version > FORMAT_VERSION:
        raise BrokenRecordError(
            f"The {called} {where} has format version {version}; this release reads up to {FORMAT_VERSION}.",
            hint="use the release of tmi_ops that wrote it, or a newer one; RESTORE.md in the store explains how to "
            "restore without tmi_ops",
        )
