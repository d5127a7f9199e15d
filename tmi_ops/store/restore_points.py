"""Records of restore points, `restore-points/<name>.json`: position in the WAL, and what the tables held there."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote, unquote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import BackupError, ObjectExistsError, ObjectMissingError
from tmi_ops.store.described import read_described, write_described
from tmi_ops.store.manifest import BrokenRecordError, TableFingerprint
from tmi_ops.store.objects import ObjectStore

FOLDER = "restore-points"
# PostgreSQL stores the name in 64 bytes with a terminating zero.
NAME_BYTES = 63


class RestorePoint(BaseModel):
    """A restore point and the content of one database at it.

    Its WAL record begins at or after `after_lsn` and ends at `lsn`. `fingerprints` are by `schema.table`.
    `writers_held_seconds`: how long writers were blocked.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    name: str
    environment: str
    database: str
    system_identifier: str | None
    timeline: int | None
    after_lsn: str
    lsn: str
    created_at: AwareDatetime
    writers_held_seconds: float
    server_version: str
    tmi_ops_version: str
    fingerprints: dict[str, TableFingerprint] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(fingerprint.rows for fingerprint in self.fingerprints.values())


def restore_point_key(name: str) -> str:
    """The key of a restore point's record; characters that a key or a path cannot hold are percent-encoded."""
    return f"{FOLDER}/{quote(name, safe=' ')}.json"


def require_unused_name(store: ObjectStore, name: str) -> None:
    """Check that a restore point may have this name.

    Raises:
        BackupError: the name is empty, too long or not printable.
        ObjectExistsError: a restore point of that name exists.
        StoreError: the store failed.
    """
    if not name.strip() or not name.isprintable() or len(name.encode()) > NAME_BYTES:
        raise BackupError(
            f"{name!r} is not a valid restore point name.",
            hint=f"use 1 to {NAME_BYTES} bytes of printable text",
        )
    try:
        store.size(restore_point_key(name))
    except ObjectMissingError:
        return
    raise _taken(name)


def put_restore_point(store: ObjectStore, point: RestorePoint) -> None:
    """Record it, once.

    Raises:
        ObjectExistsError: the name was taken meanwhile.
    """
    try:
        clear = point.model_copy(update={"fingerprints": {}})
        write_described(store, restore_point_key(point.name), _json(clear), _json(point), "restore point")
    except ObjectExistsError:
        raise _taken(point.name) from None


def read_restore_point(store: ObjectStore, name: str) -> RestorePoint | None:
    """The record of a restore point; None if there is none. The restore point may still be in the WAL.

    Raises:
        BrokenRecordError: the record cannot be read.
    """
    key = restore_point_key(name)
    try:
        return RestorePoint.model_validate_json(read_described(store, key, "restore point"))
    except ObjectMissingError:
        return None
    except ValidationError:
        raise BrokenRecordError(f"The restore point record {key} cannot be read.") from None


def list_restore_points(store: ObjectStore) -> list[str]:
    """The names of all recorded restore points.

    Raises:
        StoreError: the store failed.
    """
    keys = (item.key for item in store.list_objects(f"{FOLDER}/"))
    return sorted(unquote(key[len(FOLDER) + 1 : -len(".json")]) for key in keys if key.endswith(".json"))


def _taken(name: str) -> ObjectExistsError:
    return ObjectExistsError(
        f"The restore point {name!r} already exists.",
        hint="choose another name, for example one that includes the date",
    )


def _json(point: RestorePoint) -> bytes:
    return point.model_dump_json(indent=2).encode() + b"\n"
