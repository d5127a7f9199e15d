"""The store: one environment's objects, encrypted and checked, on top of a back end (`backend.py`).

Every key is relative to `<prefix>/<environment>/`. A missing object raises ObjectMissingError in every method; any
other refusal raises a StoreError that names the next step. What the server confirms is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.progress import Phase
from tmi_ops.settings import Retain, StoreSettings
from tmi_ops.store.backend import Backend, Condition, IfAbsent, ListedObject, Put, missing
from tmi_ops.store.digest import Digest, RunningDigest, checked, require_equal
from tmi_ops.store.encryption import ByteSink, EncryptingSink, decrypted, parse_recipients, read_identities
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.trust import Trust, read_trust

__all__ = ["AtHand", "ListedObject", "ObjectStore", "make_place", "open_store"]

DELETE_BATCH = 1000
T = TypeVar("T")

# Returns a document's bytes by its key, None if it is known to be absent; raises LookupError if the store must be read.
AtHand = Callable[[str], bytes | None]


@dataclass(frozen=True)
class ObjectStore:
    """A handle on one environment's objects. Thread-safe; holds no state but its connections.

    `seen_file`: where this machine records the newest state that it has seen, to detect a store that went back to an
    older one. `at_hand`: documents that are already known; see `overview.py`.
    """

    backend: Backend = field(repr=False)
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    trust: Trust = field(default_factory=Trust)
    seen_file: Path | None = None
    retain: Retain | None = None
    at_hand: AtHand | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """The prefix of each key in the store; it ends with a slash."""
        return self.backend.root

    @property
    def where(self) -> str:
        """A description of the store for messages, without credentials."""
        return self.backend.where

    def url(self, key: str) -> str:
        """The URL of an object, for people."""
        return f"{self.backend.url}{key}"

    def upload(self, key: str, chunks: Iterable[bytes], *, phase: Phase | None = None) -> StoredObject:
        """Stream an object of any length into the store, encrypted if recipients are configured.

        The object appears whole or not at all; an older one of that key is replaced. Memory is bounded (see
        `s3/upload.py`). On any failure, including Ctrl-C and an exception of `chunks`, nothing is left behind and the
        failure is raised again.

        Args:
            phase: advanced by plain bytes as they are read.

        Returns:
            Sizes and digests, computed while streaming. Its name is the key below `<kind>/<backup id>/`.
        """
        upload = self.backend.upload(key)
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

        With `expected`, the stored bytes are checked against it, decrypted if it says so, and the plain bytes are
        checked too; the last chunk follows only after all checks. Without it, stored bytes are returned unchecked.
        Closing the iterator early stops reading.

        Raises:
            ObjectMissingError: the object does not exist (raised by the call itself).
            IntegrityError: truncated, too long, altered or undecryptable; the message says which.
            StoreError: the store failed, or the private key is missing or does not match.
        """
        identities = read_identities(self.identity_file) if expected and expected.encrypted else []
        stream = self.backend.stream(key)
        if expected is None:
            return stream.chunks
        found = Digest(stream.size, expected.sha256)
        require_equal(found, Digest(expected.size, expected.sha256), key)
        stored = checked(stream.chunks, Digest(expected.size, expected.sha256), key)
        if not expected.encrypted:
            return stored
        plain = decrypted(stored, identities, key)
        return checked(plain, Digest(expected.plain_size, expected.plain_sha256), f"{key}, decrypted,")

    def put(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        condition: Condition = None,
        *,
        quick: bool = False,
    ) -> Put:
        """Store a small object as it is; see `Backend.put`."""
        return self.backend.put(key, body, metadata, condition, quick=quick)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted. Replaces an older one; may be repeated."""
        self.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted, if none has that key: of two writers one wins.

        Raises:
            ObjectExistsError: one exists; it was left unchanged.
        """
        self.put(key, data, condition=IfAbsent())

    def get_bytes(self, key: str) -> bytes:
        """Read a small object whole, as it is stored."""
        return b"".join(self.download(key))

    def size(self, key: str) -> int:
        """The stored size of an object, in bytes."""
        found = self.backend.head(key)
        if found is None:
            raise missing(key)
        return found.size

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, by key. An empty listing is not an error.

        Args:
            after: only objects whose key sorts after this one.
        """
        return self.backend.objects(prefix, after=after)

    def list_folders(self, prefix: str, *, beginning: str = "") -> list[str]:
        """The names of the folders directly in `prefix` that hold objects, sorted, without the prefix and slashes.

        Args:
            beginning: only names from this one on.
        """
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        return self.backend.level(folder, after=f"{folder}{beginning}" if beginning else "")[1]

    def list_level(self, folder: str) -> tuple[list[ListedObject], list[str]]:
        """The objects directly in a folder, and the names of its subfolders."""
        return self.backend.level(f"{folder.rstrip('/')}/")

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. An absent one counts as deleted, so this may be repeated.

        Raises:
            StoreError: the store kept an object, for example under a hold; those deleted before stay deleted.
        """
        for batch in _batches(keys):
            kept = self.backend.delete([(key, None) for key in batch])
            if kept:
                raise StoreError(
                    f"The store refused to delete {len(kept)} objects. The first is {kept[0].key}: {kept[0].why}.",
                    detail="These objects are intact.",
                    hint="grant s3:DeleteObject to these access keys, or wait until the lock on the objects ends"
                    if self.backend.guard is not None
                    else "give the directory and everything in it to the account that runs tmi-ops",
                    code=Code.STORE_RIGHT_MISSING,
                )

    def delete_versions(self, stored: Iterable[tuple[str, str | None]]) -> None:
        """Delete objects for good, each with its version, so that a versioned bucket keeps nothing of them.

        If our key may not delete versions, the object is deleted and its version stays.

        Args:
            stored: keys, each with the version that its put returned; None if the bucket keeps none.

        Raises:
            StoreError: as `delete`.
        """
        for batch in _batches(stored):
            self.delete(one.key for one in self.backend.delete(batch))

    def abort_stale_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort unfinished multipart uploads below `prefix` that began more than `older_than` ago.

        Ages are by the server's clock. Zero aborts all: use it only if no upload can be running.

        Returns:
            The number of aborted uploads.
        """
        aborted = 0
        for upload in self.backend.unfinished(prefix):
            if older_than and upload.age_s <= older_than.total_seconds():
                continue
            self.backend.abort(upload)
            aborted += 1
        return aborted

    def patient(self, settings: StoreSettings, patience_s: float) -> ObjectStore:
        """The same store, over connections that retry a request for `patience_s` seconds before it fails."""
        if settings.directory is not None:
            return self
        from tmi_ops.store.s3.backend import bucket_backend

        return replace(self, backend=bucket_backend(settings, self.root, patience_s))


def open_store(settings: StoreSettings, environment: str, *, hurried: bool = False, kept: bool = False) -> ObjectStore:
    """Open the store, and check that the bucket accepts our keys, or that the directory exists. Fails fast.

    Args:
        hurried: every later request fails fast too, for callers that have a fallback.
        kept: reuse this process's connections, for a service that opens the store again and again.

    Raises:
        StoreError: no store is configured or it does not exist, the endpoint or the keys are wrong, or a recipient is
            not an age public key; the hint names the next step.
        SettingsError: a signing or trusted key cannot be read.
    """
    if not settings.is_configured:
        raise StoreError(
            "No store is configured.",
            hint="set TMI_OPS_S3_BUCKET (and TMI_OPS_S3_ENDPOINT_URL for a server other than AWS), or "
            "TMI_OPS_STORE_DIRECTORY, or start the embedded stack with `tmi-ops up`",
            code=Code.STORE_ADDRESS,
        )
    if settings.age_recipients:
        parse_recipients(settings.age_recipients)
    trust = read_trust(environment, settings.signing_key_file, settings.trusted_keys)
    store = ObjectStore(
        _opened(settings, settings.root(environment), hurried=hurried, kept=kept),
        recipients=settings.age_recipients,
        identity_file=settings.age_identity_file,
        trust=trust,
        seen_file=settings.seen_file,
        retain=settings.retain,
    )
    from tmi_ops.store.retired import Records

    return replace(store, trust=replace(trust, records=Records(store)))


def make_place(settings: StoreSettings) -> None:
    """Create the bucket or the directory unless it exists. May be repeated.

    Raises:
        StoreError: it cannot be created.
    """
    if settings.directory is not None:
        from tmi_ops.store.directory.opening import make_directory

        make_directory(settings)
    else:
        from tmi_ops.store.s3.bucket import make_bucket

        make_bucket(settings)


def _opened(settings: StoreSettings, root: str, *, hurried: bool, kept: bool) -> Backend:
    if settings.directory is not None:
        from tmi_ops.store.directory.opening import open_directory

        return open_directory(settings, root)
    from tmi_ops.store.s3.backend import open_bucket

    return open_bucket(settings, root, hurried=hurried, kept=kept)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(items)
    while batch := list(islice(waiting, DELETE_BATCH)):
        yield batch


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
