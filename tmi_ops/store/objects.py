"""The store: one environment's part of an S3 bucket, and the verbs on its objects.

Every key is relative to `<prefix>/<environment>/`. A missing object is an ObjectMissingError, whatever the verb; any
other refusal is a StoreError that names the next step. What the server answers is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.progress import Phase
from tmi_ops.settings import Retain, StoreSettings
from tmi_ops.store.client import READ_TIMEOUT_S, connect_store, refusals_explained, store_session
from tmi_ops.store.conditional_put import IfAbsent, Puts
from tmi_ops.store.digest import Digest, RunningDigest, checked, require_equal
from tmi_ops.store.download import Source, read_object
from tmi_ops.store.encryption import ByteSink, EncryptingSink, decrypted, parse_recipients, read_identities
from tmi_ops.store.locking import lock_request
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.trust import Trust, read_trust
from tmi_ops.store.upload import Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH = 1000
HURRIED_READ_TIMEOUT_S = 5
_ABSENT = ("NoSuchKey", "NoSuchVersion")


# A document's bytes by its key, None where it is known to be absent; a LookupError says to ask the store.
AtHand = Callable[[str], bytes | None]


@dataclass(frozen=True)
class ListedObject:
    """One object of a listing. `size` in bytes; `modified` is the server's clock, aware. `etag`: no checksum, but
    another one after each change."""

    key: str
    size: int
    modified: datetime
    etag: str = ""


@dataclass(frozen=True)
class ObjectStore:
    """A handle on one environment's objects. Usable from several threads; holds no state but its connections.

    `seen_file`: where this machine notes the newest that it has seen, so that a store that went back is noticed.
    `at_hand`: documents that are known already; see `overview.py`.
    """

    client: S3Client = field(repr=False)
    bucket: str
    root: str
    where: str
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    trust: Trust = field(default_factory=Trust)
    seen_file: Path | None = None
    retain: Retain | None = None
    at_hand: AtHand | None = field(default=None, repr=False)

    def upload(self, key: str, chunks: Iterable[bytes], *, phase: Phase | None = None) -> StoredObject:
        """Stream an object of any length into the store, encrypted when recipients are configured.

        The object appears whole or not at all; an older one of that key is replaced. Memory stays bounded (see
        `upload.py`). On any failure, Ctrl-C and an exception of `chunks` included, nothing is left behind and the
        failure passes on.

        Args:
            phase: advanced by plain bytes as they are taken in.

        Returns:
            Sizes and digests, counted while streaming. Its name is the key below `<kind>/<backup id>/`.
        """
        lock = lock_request(self.retain, key, datetime.now(UTC))
        upload = Upload(self.client, self.bucket, self._full(key), self.where, lock)
        sink: ByteSink = EncryptingSink(upload, self.recipients) if self.recipients else upload
        plain = RunningDigest() if self.recipients else None
        try:
            for chunk in chunks:
                sink.write(chunk)
                if plain is not None:
                    plain.update(chunk)
                if phase is not None:
                    phase.advance(len(chunk))
            stored = sink.finish()
        except BaseException:
            sink.abort()
            raise
        return _stored_object(key, stored, plain.result() if plain is not None else None)

    def download(self, key: str, expected: StoredObject | None = None) -> Iterator[bytes]:
        """Stream an object out of the store, reading ahead within bounded memory.

        With `expected`, the stored bytes are checked against it, decrypted when it says so, and the plain bytes are
        checked too; the last chunk comes only after all that. Without, stored bytes come as they are, unchecked.
        Closing the iterator early stops the reading.

        Raises:
            ObjectMissingError: there is no such object (raised by the call itself).
            IntegrityError: truncated, too long, altered or undecryptable; the message says which.
            StoreError: the store failed, or the private key is missing or another's.
        """
        identities = read_identities(self.identity_file) if expected and expected.encrypted else []
        source = self._source(key)
        stored = read_object(source)
        if expected is None:
            return stored
        found = Digest(source.size, expected.sha256)
        require_equal(found, Digest(expected.size, expected.sha256), key)
        stored = checked(stored, Digest(expected.size, expected.sha256), key)
        if not expected.encrypted:
            return stored
        plain = decrypted(stored, identities, key)
        return checked(plain, Digest(expected.plain_size, expected.plain_sha256), f"{key}, decrypted,")

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted. Replaces an older one; may be repeated."""
        self.puts.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted, unless there is one of that key: of two writers one wins.

        Raises:
            ObjectExistsError: there is one; it was left as it is.
        """
        self.puts.put(key, data, condition=IfAbsent())

    def get_bytes(self, key: str) -> bytes:
        """Read a small object whole, as it is stored."""
        return b"".join(self.download(key))

    def size(self, key: str) -> int:
        """The stored bytes of an object."""
        return self._source(key).size

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, by key. An empty listing is not an error.

        Args:
            after: only those whose key sorts behind this one.
        """
        request: Any = {"StartAfter": self._full(after)} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix), **request
        )
        with refusals_explained(self.where):
            for page in pages:
                for item in page.get("Contents", ()):
                    yield self._listed(item)

    def list_folders(self, prefix: str, *, beginning: str = "") -> list[str]:
        """The names directly below the folder `prefix` that hold objects, sorted; without the prefix and slashes.

        Args:
            beginning: only the names from this one on.
        """
        folder = self._full(f"{prefix.rstrip('/')}/" if prefix else "")
        after: Any = {"StartAfter": f"{folder}{beginning}"} if beginning else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=folder, Delimiter="/", **after
        )
        with refusals_explained(self.where):
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(folder).rstrip("/") for name in found)

    def list_level(self, folder: str) -> tuple[list[ListedObject], list[str]]:
        """The objects directly in a folder, and the names of the folders in it."""
        full = self._full(f"{folder.rstrip('/')}/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=full, Delimiter="/")
        objects: list[ListedObject] = []
        folders: list[str] = []
        with refusals_explained(self.where):
            for page in pages:
                objects += [self._listed(item) for item in page.get("Contents", ())]
                folders += [item["Prefix"].removeprefix(full).rstrip("/") for item in page.get("CommonPrefixes", ())]
        return objects, folders

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; an absent one counts as deleted, so this may be repeated.

        Raises:
            StoreError: the store kept one, for example under a hold; those deleted before stay deleted.
        """
        waiting = iter(keys)
        while batch := list(islice(waiting, DELETE_BATCH)):
            with refusals_explained(self.where):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": self._full(key)} for key in batch], "Quiet": True}
                )
            kept = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
            if kept:
                raise StoreError(
                    f"The store refused to delete {len(kept)} objects. The first is "
                    f"{kept[0].get('Key')}: {kept[0].get('Message') or kept[0].get('Code')}.",
                    detail="These objects are intact.",
                    hint="grant s3:DeleteObject to these access keys, or wait until the lock on the objects ends",
                    code=Code.STORE_RIGHT_MISSING,
                )

    def delete_versions(self, stored: Iterable[tuple[str, str | None]]) -> None:
        """Delete objects that nobody will want back: each with its version, so that a bucket that keeps versions keeps
        nothing of it. Where our key may remove no versions, the object goes and its version stays.

        Args:
            stored: keys, each with the version that its put told; None: the bucket keeps none.

        Raises:
            StoreError: as `delete`.
        """
        waiting = iter(stored)
        while batch := list(islice(waiting, DELETE_BATCH)):
            wanted: Any = [
                {"Key": self._full(key), **({} if version is None else {"VersionId": version})}
                for key, version in batch
            ]
            with refusals_explained(self.where):
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": wanted, "Quiet": True})
            kept = [error for error in answer.get("Errors", ()) if error.get("Code") not in _ABSENT]
            if kept:
                self.delete(str(error.get("Key", "")).removeprefix(self.root) for error in kept)

    def abort_stale_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort unfinished multipart uploads below `prefix` that began more than `older_than` ago.

        Ages are by the server's clock. Zero aborts all: only where no upload can be running.

        Returns:
            How many were aborted.
        """
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix)
        )
        aborted = 0
        with refusals_explained(self.where):
            for page in pages:
                now = _server_time(page["ResponseMetadata"]["HTTPHeaders"])
                for upload in page.get("Uploads", ()):
                    if older_than and now - upload["Initiated"] <= older_than:
                        continue
                    self.client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    aborted += 1
        return aborted

    def _listed(self, item: Any) -> ListedObject:
        key = item["Key"].removeprefix(self.root)
        return ListedObject(key, item["Size"], item["LastModified"].astimezone(UTC), item.get("ETag", ""))

    def _full(self, key: str) -> str:
        return f"{self.root}{key}"

    def _source(self, key: str) -> Source:
        with refusals_explained(self.where, key):
            found = self.client.head_object(Bucket=self.bucket, Key=self._full(key))
        return Source(self.client, self.bucket, self._full(key), found["ContentLength"], found["ETag"], self.where)

    @cached_property
    def puts(self) -> Puts:
        """How small objects are put, with or without a condition."""
        return Puts(self.client, self.bucket, self.root, self.where, self.retain)


def open_store(settings: StoreSettings, environment: str, *, hurried: bool = False) -> ObjectStore:
    """Reach the store and see that the bucket answers to our keys. Quick to fail.

    Args:
        hurried: stay quick to fail with every request after that, for what has something else to fall back on.

    Raises:
        StoreError: no bucket is configured or it does not exist, the endpoint or the keys are wrong, or a recipient
            is not an age public key; the message names the next step.
        SettingsError: a signing or trusted key cannot be read.
    """
    if not settings.bucket:
        raise StoreError(
            "No bucket is configured.",
            hint="set TMI_OPS_S3_BUCKET (and TMI_OPS_S3_ENDPOINT_URL for a server other than AWS), or start the "
            "embedded stack with `tmi-ops up`",
            code=Code.STORE_ADDRESS,
        )
    if settings.age_recipients:
        parse_recipients(settings.age_recipients)
    trust = read_trust(environment, settings.signing_key_file, settings.trusted_keys)
    root = "/".join(part for part in (settings.prefix.strip("/"), environment) if part) + "/"
    session = store_session()
    silence_s = HURRIED_READ_TIMEOUT_S if hurried else READ_TIMEOUT_S
    impatient = connect_store(session, settings, patience_s=0, read_timeout_s=silence_s)
    with refusals_explained(settings.describe()):
        # A listing, not HeadBucket: only an answer with a body says whether bucket or keys are wrong.
        answer = impatient.list_objects_v2(Bucket=settings.bucket, Prefix=root, MaxKeys=1)
    if answer.get("Name") != settings.bucket:
        raise StoreError(
            f"The server at {settings.public_endpoint} is not an S3 server.",
            hint="set TMI_OPS_S3_ENDPOINT_URL to the S3 API's address, not to the address of its web page",
            code=Code.STORE_ADDRESS,
        )
    store = ObjectStore(
        client=impatient if hurried else connect_store(session, settings),
        bucket=settings.bucket,
        root=root,
        where=settings.describe(),
        recipients=settings.age_recipients,
        identity_file=settings.age_identity_file,
        trust=trust,
        seen_file=settings.seen_file,
        retain=settings.retain,
    )
    from tmi_ops.store.retired import Records

    return replace(store, trust=replace(trust, records=Records(store)))


def _stored_object(key: str, stored: Digest, plain: Digest | None) -> StoredObject:
    original = plain or stored
    return StoredObject(
        name=key.split("/", 2)[-1],
        size=stored.size,
        sha256=stored.sha256,
        plain_size=original.size,
        plain_sha256=original.sha256,
        encrypted=plain is not None,
    )


def _server_time(headers: dict[str, str]) -> datetime:
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
