"""The contract of a store's back end, and the values that it uses. See `s3/` and `directory/`.

Keys are relative to the environment's root. When a method returns, its effect is durable and visible to every reader. A
missing object raises ObjectMissingError unless a method says otherwise; any other failure raises a StoreError whose
hint names the next step. Methods may be called from several threads; other processes and machines may read and write at
the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, ObjectMissingError
from tmi_ops.settings import Retain

if TYPE_CHECKING:
    from tmi_ops.store.encryption import ByteSink

# Metadata key for the SHA-256 of the object's bytes, in hexadecimal.
CHECKSUM = "stored-sha256"
# A legal hold has no end.
UNTIL_RELEASED = datetime.max.replace(tzinfo=UTC)


class ObjectChangedError(ObjectExistsError):
    """A conditional put found that another writer changed the object since it was read; it was left unchanged."""

    default_code = Code.OBJECT_CHANGED


@dataclass(frozen=True)
class IfAbsent:
    """Only if no object has that key."""


@dataclass(frozen=True)
class IfUnchanged:
    """Only if the object still has this ETag."""

    etag: str


Condition = IfAbsent | IfUnchanged | None


@dataclass(frozen=True)
class Put:
    """A stored object: its ETag, and its version if the store keeps versions."""

    etag: str
    version: str | None = None


@dataclass(frozen=True)
class ListedObject:
    """One object of a listing.

    `size` is in bytes; `modified` is by the store's clock, timezone-aware. `etag` is not a checksum, but changes
    whenever the bytes do.
    """

    key: str
    size: int
    modified: datetime
    etag: str = ""


@dataclass(frozen=True)
class ObjectHead:
    """What the store reports about an object.

    `size`: stored bytes. `metadata`: ours. `age_s`: seconds, by the store's own clock. `version`: None if the store
    keeps no versions.
    """

    size: int
    etag: str
    metadata: Mapping[str, str]
    modified: datetime
    age_s: float
    version: str | None = None


@dataclass(frozen=True)
class Stream:
    """A large object as it was when reading began: its `size` in bytes, and its bytes in order, in chunks."""

    size: int
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload that was neither finished nor aborted; `begun` and `age_s` are by the store's clock."""

    key: str
    upload_id: str
    begun: datetime
    age_s: float = 0.0


@dataclass(frozen=True)
class Kept:
    """An object that the store refused to delete."""

    key: str
    why: str


class Guard(Protocol):
    """What only a server with accounts and locks supports."""

    def has_lock(self) -> bool:
        """Whether the bucket was created with Object Lock."""

    def locked_until(self, key: str) -> datetime | None:
        """The time until which an object is locked, `UNTIL_RELEASED` under a legal hold; None if it is not locked."""

    def extend_lock(self, key: str, retain: Retain, now: datetime) -> None:
        """Lock an object for the whole period from now on. It never shortens a lock, so it may be repeated."""

    def set_legal_hold(self, key: str, *, on: bool) -> None:
        """Lock an object until the hold is released. May be repeated."""

    def may_delete(self) -> bool | None:
        """Whether our access keys may delete objects; None if the answer does not show it. The test deletes nothing."""

    def may_abort_uploads(self) -> bool | None:
        """False if our access keys may not abort unfinished uploads; None if the answer does not show it."""

    def may_extend_locks(self, retain: Retain, now: datetime) -> bool | None:
        """False if our access keys may not extend locks; None if the answer does not show it."""


class Backend(Protocol):
    """One environment's objects. `tmi_ops_tests/store/test_backend_contract.py` tests every back end against it."""

    @property
    def root(self) -> str:
        """The prefix of each key in the store; it ends with a slash."""

    @property
    def where(self) -> str:
        """A description of the store for messages, without credentials."""

    @property
    def url(self) -> str:
        """The root as a URL that ends with a slash."""

    def guide_values(self) -> Mapping[str, str]:
        """The values that RESTORE.md contains for this store, by placeholder.

        `CONNECT` is its step 1, and may contain the other placeholders. No credentials.
        """

    @property
    def guard(self) -> Guard | None:
        """None if this kind of store has neither locks nor access keys."""

    def head(self, key: str) -> ObjectHead | None:
        """The head of an object; None if it does not exist."""

    def get(self, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
        """Read a small object with its head, in one request; with `limit`, no more than that many bytes."""

    def get_beginning(self, key: str, size: int) -> bytes:
        """The first `size` bytes of an object of any size, fewer if it is shorter."""

    def stream(self, key: str) -> Stream:
        """Read an object of any size within bounded memory. Closing the iterator early stops reading.

        Raises:
            ObjectMissingError: the object does not exist; raised by the call itself.
            IntegrityError: raised by the iterator if the object was replaced while it was read. A back end may continue
                with the old bytes instead; it never mixes the two.
        """

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, sorted by the UTF-8 bytes of their keys.

        No match is not an error. Objects stored or deleted meanwhile may or may not appear; every other object appears
        once. Some servers (SeaweedFS) sort a folder by its name without the slash: `c/x` before `c-x`.

        Args:
            after: only objects whose key sorts after this one.
        """

    def level(self, folder: str, *, after: str = "") -> tuple[list[ListedObject], list[str]]:
        """The objects directly in a folder, and the names of its subfolders that hold objects, both sorted.

        A server may list a folder for a while after its last object was deleted.

        Args:
            folder: ends with a slash; empty for the root.
            after: only objects and folders whose key sorts after this one. For a folder of exactly this name, servers
                differ.
        """

    def put(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        condition: Condition = None,
        *,
        quick: bool = False,
    ) -> Put:
        """Store an object whole, with its SHA-256 in the metadata.

        Without a condition it replaces an existing object and may be repeated. Of two writers with a condition, one
        wins.

        Args:
            quick: use as little CPU as possible.

        Raises:
            ObjectExistsError: the condition was `IfAbsent` and the object exists.
            ObjectChangedError: the condition was `IfUnchanged` and the object has changed or is gone.
        """

    def upload(self, key: str) -> ByteSink:
        """Begin an object of any length: write, then finish or abort.

        It appears whole when finished, or not at all, and replaces an older one. `abort` may be called at any time, and
        repeatedly. Uploads that were neither finished nor aborted are listed by `unfinished`.
        """

    def restamp(self, key: str, metadata: Mapping[str, str], etag: str) -> None:
        """Replace the metadata of the object that has this ETag; its bytes stay. May be repeated.

        Raises:
            StoreError: the object has changed.
        """

    def delete(self, stored: Sequence[tuple[str, str | None]]) -> Sequence[Kept]:
        """Delete up to 1,000 objects, each with the version that its put returned, or None.

        An absent object counts as deleted, so this may be repeated. Returns the objects that the store kept.
        """

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Unfinished uploads of keys that begin with `prefix`, sorted by key."""

    def abort(self, upload: UnfinishedUpload) -> None:
        """Abort an unfinished upload. If it has ended meanwhile, that is not an error."""

    def clock(self) -> datetime:
        """The time by the clock that stamps objects."""

    def watch(self, note: Callable[[str], None]) -> Callable[[], None]:
        """Call `note` with the kind of each request that costs money, until the returned function is called."""


def holds(condition: Condition, etag: str | None) -> bool:
    """Whether a put may proceed. Pure.

    Args:
        etag: of the existing object; None if there is none.
    """
    if isinstance(condition, IfAbsent):
        return etag is None
    return condition is None or condition.etag == etag


def refused(key: str, condition: Condition) -> ObjectExistsError:
    """The error for a put whose condition does not hold."""
    if isinstance(condition, IfUnchanged):
        return ObjectChangedError(
            f"Somebody else has written {key} since it was read.",
            detail="It was not overwritten.",
            hint="find out who writes to this store: `tmi-ops wal status`",
        )
    return ObjectExistsError(
        f"{key} already exists in the store.",
        detail="It was not overwritten.",
        hint="find out whether another tmi_ops wrote it: `tmi-ops backups`",
    )


def missing(key: str) -> ObjectMissingError:
    """The error for an object that does not exist."""
    return ObjectMissingError(f"The store has no object {key}.", hint="list the backups with `tmi-ops backups`")
