"""Objects that fit in memory, each stored by one PUT: with metadata, a checksum the server enforces, and a condition.

A condition makes the PUT atomic against other writers: `IfAbsent`, or `IfUnchanged` since an ETag was seen. A server
that knows no conditions (501) is written to without; whoever calls then relies on having looked before.

What is encrypted is recognised by its first bytes, so an object needs no manifest to be read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tmi_ops.errors import ObjectExistsError, ObjectMissingError
from tmi_ops.store.client import http_status, refusals_explained
from tmi_ops.store.digest import damaged
from tmi_ops.store.encryption import decrypted, parse_recipients, read_identities
from tmi_ops.store.objects import ObjectStore

AGE_MAGIC = b"age-encryption.org/v1\n"
CHECKSUM = "stored-sha256"

_PRECONDITION_FAILED = 412
_CONFLICT = 409
_NOT_IMPLEMENTED = 501
# A writer that meets another one at the same instant (409), or whose body arrives damaged, is asked to try again.
_SENDINGS = 5
_DAMAGED_ON_THE_WAY = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


class ObjectChangedError(ObjectExistsError):
    """A conditional put found that somebody else wrote the object since it was looked at; it was left as it is."""


@dataclass(frozen=True)
class IfAbsent:
    """Only where no object of that key is."""


@dataclass(frozen=True)
class IfUnchanged:
    """Only over the object that had this ETag."""

    etag: str


Condition = IfAbsent | IfUnchanged | None


@dataclass(frozen=True)
class ObjectHead:
    """What the server says of an object: stored `size` in bytes, our metadata, its age in seconds by the server's
    own clock."""

    size: int
    etag: str
    metadata: Mapping[str, str]
    modified: datetime
    age_s: float


def look(store: ObjectStore, key: str) -> ObjectHead | None:
    """The head of an object; None where there is none.

    Raises:
        StoreError: the store failed.
    """
    try:
        with refusals_explained(store.where, key):
            found: Any = store.client.head_object(Bucket=store.bucket, Key=f"{store.root}{key}")
    except ObjectMissingError:
        return None
    return _head(found)


def put_single(
    store: ObjectStore, key: str, body: bytes, metadata: Mapping[str, str] | None = None, condition: Condition = None
) -> str:
    """Store an object whole. `body` is stored as it is; see `sealed` for encryption.

    The SHA-256 of the body is kept in its metadata too, so that reading can check what the server does not.

    Returns:
        Its ETag.

    Raises:
        ObjectExistsError: the condition was `IfAbsent` and there is one.
        ObjectChangedError: the condition was `IfUnchanged` and the object is another by now, or gone.
        StoreError: the store failed.
    """
    digest = hashlib.sha256(body)
    request: dict[str, Any] = {
        "Bucket": store.bucket,
        "Key": f"{store.root}{key}",
        "Body": body,
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {**(metadata or {}), CHECKSUM: digest.hexdigest()},
    }
    if isinstance(condition, IfAbsent):
        request["IfNoneMatch"] = "*"
    elif isinstance(condition, IfUnchanged):
        request["IfMatch"] = condition.etag
    for attempt in range(1, _SENDINGS + 1):
        with refusals_explained(store.where, key):
            try:
                return str(store.client.put_object(**request)["ETag"])
            except store.client.exceptions.ClientError as error:
                status = http_status(error)
                if condition is not None and status == _NOT_IMPLEMENTED:
                    request.pop("IfNoneMatch", None)
                    request.pop("IfMatch", None)
                elif condition is not None and (
                    status == _PRECONDITION_FAILED or (isinstance(condition, IfUnchanged) and status == 404)
                ):
                    return _was_ours(store, key, digest.hexdigest(), condition)
                elif not _is_worth_another(error, status) or attempt == _SENDINGS:
                    raise
    raise AssertionError


def get_single(store: ObjectStore, key: str) -> tuple[bytes, ObjectHead]:
    """Read an object whole and check it against the SHA-256 in its metadata, where it has one.

    Raises:
        ObjectMissingError: there is none.
        IntegrityError: it is not what was stored.
        StoreError: the store failed.
    """
    from botocore.exceptions import BotoCoreError

    with refusals_explained(store.where, key):
        for attempt in range(1, _SENDINGS + 1):
            answer: Any = store.client.get_object(Bucket=store.bucket, Key=f"{store.root}{key}")
            try:
                body = bytes(answer["Body"].read())
                break
            except (BotoCoreError, OSError):
                if attempt == _SENDINGS:
                    raise
    head = _head(answer)
    expected = head.metadata.get(CHECKSUM)
    if expected is not None and hashlib.sha256(body).hexdigest() != expected:
        raise damaged(f"{key} was altered: its SHA-256 is not the one it was stored with")
    return body, head


def sealed(store: ObjectStore, plain: bytes) -> bytes:
    """Encrypted for the store's recipients; the same bytes where it has none.

    Raises:
        StoreError: a recipient is not an age public key.
    """
    if not store.recipients:
        return plain
    import pyrage

    return bytes(pyrage.encrypt(plain, parse_recipients(store.recipients)))


def is_sealed(body: bytes) -> bool:
    """Whether these stored bytes are an age file."""
    return body.startswith(AGE_MAGIC)


def unsealed(store: ObjectStore, key: str, body: bytes) -> bytes:
    """The plain bytes of what `sealed` made, or was given in an unencrypted store.

    Raises:
        StoreError: it is encrypted, and the private key is missing or another's.
        IntegrityError: it cannot be decrypted.
    """
    if not is_sealed(body):
        return body
    return b"".join(decrypted(iter([body]), read_identities(store.identity_file), key))


def _was_ours(store: ObjectStore, key: str, sha256: str, condition: Condition) -> str:
    """A retried put may have met the object that its own first attempt stored before the answer was lost."""
    found = look(store, key)
    if found is not None and found.metadata.get(CHECKSUM) == sha256:
        return found.etag
    if isinstance(condition, IfUnchanged):
        raise ObjectChangedError(
            f"Somebody else wrote {key} since it was looked at.",
            kept="It was left as it is.",
            next_step="see who writes to this store: `tmi-ops wal status`",
        )
    raise ObjectExistsError(f"The store already has {key}.", kept="It was left as it is.")


def _is_worth_another(error: Any, status: int) -> bool:
    return status == _CONFLICT or error.response.get("Error", {}).get("Code") in _DAMAGED_ON_THE_WAY


def _head(answer: Any) -> ObjectHead:
    modified = answer["LastModified"].astimezone(UTC)
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)
    return ObjectHead(
        size=answer["ContentLength"],
        etag=answer["ETag"],
        metadata=answer.get("Metadata", {}),
        modified=modified,
        age_s=(now - modified).total_seconds(),
    )
