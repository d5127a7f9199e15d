"""What the store says of itself: a backup's manifest, and the verdict of a proof. Everything else is bytes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tmi_ops.errors import StoreError

FORMAT_VERSION = 1

Kind = Literal["logical", "base"]
Format = Literal["custom", "directory", "plain", "schema-only"]
Outcome = Literal["proven", "failed"]


class _Fact(BaseModel):
    # A field that a later release adds within the same format version must not blind this one.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Fact):
    """One object of a backup: what lies in the store, and what it is once decrypted. Sizes in bytes.

    `name` is relative to the backup's folder. `sha256` and `size` are of the stored bytes, so that
    `sha256sum` alone can check them; `plain_*` equal them when the object is not encrypted.
    """

    name: str
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str
    encrypted: bool


class TableFingerprint(_Fact):
    """A table's content in one snapshot: its row count and an order-independent digest of its rows."""

    rows: int
    digest: str


class SequenceRange(_Fact):
    """Bounds of a sequence's last value around the snapshot. Sequences do not obey snapshots."""

    before: int
    after: int


class BackupManifest(_Fact):
    """What commits a backup of any kind: written last, never changed. Sizes in bytes, times aware of their zone."""

    format_version: Literal[1] = 1
    backup_id: str
    environment: str
    server_version: str
    server_version_num: int
    started_at: AwareDatetime
    finished_at: AwareDatetime
    duration_seconds: float
    parent: str | None = None
    tools: dict[str, str] = Field(default_factory=dict)
    recipients: tuple[str, ...] = ()
    tmi_ops_version: str

    if TYPE_CHECKING:
        # Each kind declares it after facts of its own, so that a person who reads the JSON meets these first.
        objects: tuple[StoredObject, ...]

    @property
    def total_size(self) -> int:
        """Bytes in the store, the manifest itself not counted."""
        return sum(item.size for item in self.objects)

    @property
    def encrypted(self) -> bool:
        """Whether reading it needs a private key."""
        return any(item.encrypted for item in self.objects)


class Manifest(BackupManifest):
    """A logical backup: one database in one snapshot."""

    kind: Literal["logical"]
    format: Format
    database: str
    database_size: int
    encoding: str
    collation: str
    ctype: str
    system_identifier: str | None = None
    timeline: int | None = None
    lsn: str | None = None
    snapshot: str
    snapshot_at: AwareDatetime
    globals_include_passwords: bool = False
    objects: tuple[StoredObject, ...]
    fingerprints: dict[str, TableFingerprint] = Field(default_factory=dict)
    sequences: dict[str, SequenceRange] = Field(default_factory=dict)

    @property
    def taken_at(self) -> datetime:
        """The moment whose data it holds."""
        return self.snapshot_at


class Tablespace(_Fact):
    """A tablespace beside the data directory: where it was on the server, and the object that holds it."""

    oid: str
    location: str
    object_name: str


class BaseManifest(BackupManifest):
    """A base backup: the files of a whole cluster, and the WAL that makes them consistent.

    `chain` names the backups it builds upon, the full one first and `parent` last; empty for a full one.
    `full_because` says why a full backup was taken where an incremental one was asked for.
    `consistent_at` is when it ended, by the server's clock where that could be read: the earliest time that can be
    reached from it. `cluster_size` is what the server announced before it began, uncompressed.
    `superuser` is the cluster's first role, where it could be read; `role` the one that took the backup.
    `from_standby`: a primary ends a backup with a whole segment, a standby in the middle of one; None: not known.
    """

    kind: Literal["base"] = "base"
    format: Literal["full", "incremental"]
    chain: tuple[str, ...] = ()
    full_because: str | None = None
    system_identifier: str
    timeline: int
    start_lsn: str
    stop_lsn: str
    consistent_at: AwareDatetime
    wal_segment_size: int
    data_checksums: bool
    cluster_size: int
    tablespaces: tuple[Tablespace, ...] = ()
    role: str
    superuser: str | None = None
    from_standby: bool | None = None
    objects: tuple[StoredObject, ...]

    @property
    def taken_at(self) -> datetime:
        """The moment whose data it holds when nothing but its own WAL is replayed."""
        return self.consistent_at


AnyManifest = Manifest | BaseManifest


class Verdict(_Fact):
    """The outcome of one proof of one backup. `phases` maps a phase's name to its seconds."""

    format_version: Literal[1] = 1
    backup_id: str
    outcome: Outcome
    verified_at: AwareDatetime
    reasons: tuple[str, ...] = ()
    phases: dict[str, float] = Field(default_factory=dict)
    restore_seconds: float = 0.0
    tables: int = 0
    rows: int = 0
    server_version: str
    tmi_ops_version: str
    manifest_sha256: str


class BrokenRecordError(StoreError):
    """A manifest or verdict is there but cannot be understood."""


class _Version(_Fact):
    format_version: int


_MANIFESTS: TypeAdapter[AnyManifest] = TypeAdapter(Annotated[AnyManifest, Field(discriminator="kind")])
_VERDICTS: TypeAdapter[Verdict] = TypeAdapter(Verdict)
_Read = TypeVar("_Read")


def parse_manifest(data: bytes, where: str) -> AnyManifest:
    """Read a manifest's JSON; `where` names it in messages.

    Raises:
        BrokenRecordError: it was written by a newer release, or is not a manifest.
    """
    return _parse(_MANIFESTS, data, where, "manifest")


def parse_verdict(data: bytes, where: str) -> Verdict:
    """Read a verdict's JSON; `where` names it in messages.

    Raises:
        BrokenRecordError: it was written by a newer release, or is not a verdict.
    """
    return _parse(_VERDICTS, data, where, "verdict")


def to_json(fact: AnyManifest | Verdict) -> bytes:
    """The bytes that go into the store: indented, because people read them in a disaster."""
    return fact.model_dump_json(indent=2).encode() + b"\n"


def _parse(model: TypeAdapter[_Read], data: bytes, where: str, called: str) -> _Read:
    try:
        version = _Version.model_validate_json(data).format_version
        if version > FORMAT_VERSION:
            raise BrokenRecordError(
                f"The {called} {where} has format version {version}; this release reads up to {FORMAT_VERSION}.",
                next_step="use the release of tmi-ops that wrote it, or a newer one; RESTORE.md in the store says how "
                "to restore without tmi-ops",
            )
        return model.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise BrokenRecordError(
            f"The {called} {where} cannot be read: {field}: {first['msg']}.",
            kept="It was left as it is; the objects beside it may be whole.",
            next_step="use another backup by its id (`tmi-ops backups`), or bring back an earlier version of it if "
            "the bucket keeps versions; RESTORE.md in the store says how to restore without tmi-ops",
        ) from None
