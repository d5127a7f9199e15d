"""What a back end of the store must do, and the values that it speaks in. See `s3/` and `directory/`.

Keys are relative to the environment's root. What a back end says is done is durable, and every reader sees it at once.
A missing object is an ObjectMissingError unless a verb says otherwise; any other failure is a StoreError that names the
next step. Verbs may be called from several threads; other processes and machines read and write at the same time.
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

# In an object's metadata: the SHA-256 of its bytes, in hexadecimal.
CHECKSUM = "stored-sha256"
# A legal hold has no end.
UNTIL_RELEASED = datetime.max.replace(tzinfo=UTC)


class ObjectChangedError(ObjectExistsError):
    """A conditional put found that somebody else wrote the object since it was looked at; it was left as it is."""

    default_code = Code.OBJECT_CHANGED


@dataclass(frozen=True)
class IfAbsent:
    """Only where no object of that key is."""


@dataclass(frozen=True)
class IfUnchanged:
    """Only over the object that had this ETag."""

    etag: str


Condition = IfAbsent | IfUnchanged | None


@dataclass(frozen=True)
class Put:
    """What was stored: its ETag, and its version where the store keeps versions."""

    etag: str
    version: str | None = None


@dataclass(frozen=True)
class ListedObject:
    """One object of a listing. `size` in bytes; `modified` is the store's clock, aware. `etag`: no checksum, but
    another one after each change of the bytes."""

    key: str
    size: int
    modified: datetime
    etag: str = ""


@dataclass(frozen=True)
class ObjectHead:
    """What the store says of an object: stored `size` in bytes, our metadata, its age in seconds by the store's
    own clock; its `version` where it keeps versions."""

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
    """An upload that neither finished nor was aborted; `begun` and `age_s` are by the store's clock."""

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
    """What only a server with accounts and locks can do."""

    def has_lock(self) -> bool:
        """Whether the bucket was made with Object Lock."""

    def locked_until(self, key: str) -> datetime | None:
        """Until when an object is locked, `UNTIL_RELEASED` under a legal hold; None: it is not."""

    def extend_lock(self, key: str, retain: Retain, now: datetime) -> None:
        """Lock an object for the whole period from now on. It never shortens, so it may be repeated."""

    def set_legal_hold(self, key: str, *, on: bool) -> None:
        """Lock an object until the hold is taken off. May be repeated."""

    def may_delete(self) -> bool | None:
        """Whether our keys may delete objects; None: the answer does not tell. Nothing is deleted by asking."""

    def may_abort_uploads(self) -> bool | None:
        """False: our keys may not end unfinished uploads; None: the answer does not tell."""

    def may_extend_locks(self, retain: Retain, now: datetime) -> bool | None:
        """False: our keys may not lock objects for longer; None: the answer does not tell."""


class Backend(Protocol):
    """One environment's objects: what `tmi_ops_tests/store/test_backend_contract.py` asks of every back end."""

    @property
    def root(self) -> str:
        """What precedes each key in the store; it ends with a slash."""

    @property
    def where(self) -> str:
        """The store in words, without credentials."""

    @property
    def url(self) -> str:
        """The root as a URL, with a slash at its end."""

    def guide_words(self) -> Mapping[str, str]:
        """What RESTORE.md says of this store, by placeholder. `CONNECT` is its step 1, and may have the others in it.
        No credentials."""

    @property
    def guard(self) -> Guard | None:
        """None: this kind of store has neither locks nor access keys."""

    def head(self, key: str) -> ObjectHead | None:
        """Look at an object; None where there is none."""

    def get(self, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
        """Read a small object with its head, in one request. With `limit`, no more bytes than that are read."""

    def get_beginning(self, key: str, size: int) -> bytes:
        """The first `size` bytes of an object of any size; fewer where it is shorter."""

    def stream(self, key: str) -> Stream:
        """Read an object of any size within bounded memory. Closing the iterator early stops the reading.

        Raises:
            ObjectMissingError: there is none; raised by the call itself.
            IntegrityError: from the iterator: the object was replaced while it was read. A back end may go on with
                the old bytes instead; it never mixes the two.
        """

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, in the order of their keys' UTF-8 bytes; none is no error. What
        is stored or deleted meanwhile may be missing or not; everything else is there once. Some servers (SeaweedFS)
        sort a folder by its name without the slash: `c/x` before `c-x`.

        Args:
            after: only those whose key sorts behind this one.
        """

    def level(self, folder: str, *, after: str = "") -> tuple[list[ListedObject], list[str]]:
        """The objects directly below a folder, and the names of the folders in it that hold objects, both sorted.
        A server may name a folder for a while whose last object was deleted.

        Args:
            folder: ends with a slash; empty: the root.
            after: only objects and folders whose key sorts behind this one. Of a folder of just this name, servers
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
        """Store an object whole, with its SHA-256 in the metadata too. Without a condition it may be repeated: the
        object that was there is replaced. Of two writers with a condition, one wins.

        Args:
            quick: with as little CPU as can be.

        Raises:
            ObjectExistsError: the condition was `IfAbsent` and there is one.
            ObjectChangedError: the condition was `IfUnchanged` and the object is another by now, or gone.
        """

    def upload(self, key: str) -> ByteSink:
        """Begin an object of any length: write, then finish or abort. It appears whole when it is finished, or not at
        all, and replaces an older one. Abort may be called at any time, and again. What was neither finished nor
        aborted is in `unfinished`."""

    def restamp(self, key: str, metadata: Mapping[str, str], etag: str) -> None:
        """Replace the metadata of the object that has this ETag; its bytes stay. May be repeated.

        Raises:
            StoreError: it is another object by now.
        """

    def delete(self, stored: Sequence[tuple[str, str | None]]) -> Sequence[Kept]:
        """Delete up to 1,000 objects, each with the version that its put told, or None; an absent one counts as
        deleted, so this may be repeated. Returns those that the store kept."""

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Unfinished uploads of keys that begin with `prefix`, by key."""

    def abort(self, upload: UnfinishedUpload) -> None:
        """End an unfinished upload; one that ended meanwhile is no error."""

    def clock(self) -> datetime:
        """What time it is by the clock that stamps objects."""

    def watch(self, note: Callable[[str], None]) -> Callable[[], None]:
        """Call `note` with the kind of each request that costs money; the returned function ends that."""


def holds(condition: Condition, etag: str | None) -> bool:
    """Whether a put may go on. Pure.

    Args:
        etag: of the object that is there; None: there is none.
    """
    if isinstance(condition, IfAbsent):
        return etag is None
    return condition is None or condition.etag == etag


def refused(key: str, condition: Condition) -> ObjectExistsError:
    """The error of a put whose condition does not hold."""
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
    """The error for an object that is not there."""
    return ObjectMissingError(f"The store has no object {key}.", hint="list the backups with `tmi-ops backups`")
