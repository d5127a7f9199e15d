"""A WAL file as an object: zstd with checksums, encrypted if the store is, with its facts in the object's metadata.

The metadata has what can be computed only from unencrypted bytes, so that a backup host without the private key can
still see whether two objects hold the same WAL.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import zstandard

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, ObjectExistsError, OpsError
from tmi_ops.postgres.wal_files import LARGEST_SEGMENT, format_lsn, parse_lsn
from tmi_ops.store.backend import IfAbsent, ObjectHead
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single, look, sealed, unsealed
from tmi_ops.store.stamped import put_stamped, require_stamp
from tmi_ops.wal.layout import HISTORY_SUFFIX, file_key

ZSTD_LEVEL = 1
LARGEST_HISTORY = 1 << 20
OWN_TIMELINE = (
    "start a new timeline on this server: stop it, create the file standby.signal in its data directory, start it "
    "and run SELECT pg_promote(); then start the receiver again and take a base backup"
)
# A segment that cannot be compressed grows a little when it is packed and encrypted.
LARGEST_STORED = LARGEST_SEGMENT + (LARGEST_SEGMENT >> 4)


class WalConflictError(ObjectExistsError):
    """The archive has different WAL under the same name: two histories of one timeline."""

    default_code = Code.WAL_CONFLICT


@dataclass(frozen=True)
class FileFacts:
    """The facts about an uncompressed file in its object's metadata. A field is None if the metadata lacks it.

    Sizes in bytes. `end_lsn` is the first LSN that the file does not hold.
    """

    size: int | None
    sha256: str | None
    end_lsn: int | None

    def metadata(self) -> dict[str, str]:
        """The facts as object metadata."""
        facts = {
            "size": None if self.size is None else str(self.size),
            "sha256": self.sha256,
            "lsn": None if self.end_lsn is None else format_lsn(self.end_lsn),
        }
        return {name: value for name, value in facts.items() if value is not None}


def facts_of(head: ObjectHead) -> FileFacts:
    """The facts in an object's metadata."""
    return _facts(head.metadata)


def sha256_of(metadata: Mapping[str, str]) -> str | None:
    """The SHA-256 of the uncompressed file, from an object's metadata."""
    return _facts(metadata).sha256


def compressed(plain: bytes | bytearray | memoryview) -> bytes:
    """Compress into one zstd frame with a checksum. An object may have several frames."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(plain)


def store_once(
    store: ObjectStore,
    system_identifier: str,
    name: str,
    content: bytes | bytearray,
    end_lsn: int | None,
    more: Mapping[str, str] | None = None,
    sha256: str | None = None,
) -> bool:
    """Store a file that never changes: a whole segment or a history. May be repeated with the same bytes.

    Args:
        more: metadata besides the file's facts.
        sha256: the SHA-256 of the content, if it is already known.

    Returns:
        Whether it was new to the archive.

    Raises:
        WalConflictError: the archive has different bytes under this name, or bytes that cannot be compared; they were
            left as they are.
        StoreError: the store failed.
    """
    key = file_key(system_identifier, name)
    facts = FileFacts(len(content), sha256 or hashlib.sha256(content).hexdigest(), end_lsn)
    body = sealed(store, compressed(content))
    try:
        put_stamped(store, key, body, {**(more or {}), **facts.metadata()}, IfAbsent(), "WAL")
    except ObjectExistsError:
        if (found := look(store, key)) is None:
            raise
        _require_same(store, key, found, facts)
        return False
    return True


def load(store: ObjectStore, system_identifier: str, name: str) -> tuple[bytes, FileFacts]:
    """Read a whole file and check its size and SHA-256.

    Raises:
        ObjectMissingError: the archive has no such file.
        IntegrityError: it is not what was stored.
        StoreError: the store failed, or the private key is missing or does not fit.
    """
    plain, head = load_object(
        store, system_identifier, name, LARGEST_HISTORY if name.endswith(HISTORY_SUFFIX) else LARGEST_SEGMENT
    )
    return plain, facts_of(head)


def load_object(store: ObjectStore, system_identifier: str, name: str, most: int) -> tuple[bytes, ObjectHead]:
    """Like `load`, for any object by its name, including a piece of a partial.

    Args:
        most: the maximum number of bytes that it may unpack to.
    """
    key = file_key(system_identifier, name)
    with _explained(name):
        body, head = get_single(store, key, limit=LARGEST_STORED)
        require_stamp(store, key, head.metadata, body, "WAL")
        packed = unsealed(store, key, body)
    facts = facts_of(head)
    plain = decompressed(packed, name, most if facts.size is None else min(facts.size, most))
    if facts.size is not None and len(plain) != facts.size:
        raise wal_damaged(f"{name} has {len(plain)} bytes, but was stored with {facts.size}")
    if facts.sha256 is not None and hashlib.sha256(plain).hexdigest() != facts.sha256:
        raise wal_damaged(f"{name} was altered: its SHA-256 differs from the one stored with it")
    return plain, head


def wal_damaged(problem: str) -> IntegrityError:
    """The error for WAL in the archive that cannot be used."""
    return IntegrityError(
        f"{problem}.",
        detail="It was not used.",
        hint="restore an earlier version of the object if the bucket keeps versions; otherwise recover to a point "
        "before it, or from a base backup taken after it: `tmi-ops wal gaps --deep`",
        code=Code.WAL_DAMAGED,
    )


def conflict(name: str) -> WalConflictError:
    """The error for two histories under the same name."""
    return WalConflictError(
        f"The archive has different WAL under the name {name} than this server: two servers wrote the same timeline, "
        "or this server's files were returned to an earlier state without a new timeline.",
        detail="The archive was not changed; the server keeps its WAL.",
        hint=f"find out which history is the right one. If it is this server's: {OWN_TIMELINE}",
    )


def _require_same(store: ObjectStore, key: str, found: ObjectHead, facts: FileFacts) -> None:
    there = facts_of(found).sha256
    name = key.rpartition("/")[2]
    if there is None:
        # The metadata is lost, for example in a copy of the bucket: compare the content.
        body, _ = get_single(store, key)
        try:
            plain = decompressed(unsealed(store, key, body), name, facts.size or LARGEST_SEGMENT)
        except OpsError as error:
            raise _undecidable(name, error) from error
        there = hashlib.sha256(plain).hexdigest()
    if there != facts.sha256:
        raise conflict(name.removesuffix(".zst"))


def _undecidable(name: str, error: OpsError) -> WalConflictError:
    return WalConflictError(
        f"The archive already has {name}, and it could not be compared with the server's WAL: {error.message}",
        detail="It was not changed; the server keeps its WAL.",
        hint="remove the object if you know that it is useless",
    )


def _facts(metadata: Mapping[str, str]) -> FileFacts:
    size, lsn = metadata.get("size", ""), metadata.get("lsn")
    return FileFacts(int(size) if size.isdigit() else None, metadata.get("sha256"), parse_lsn(lsn) if lsn else None)


def decompressed(packed: bytes, name: str, limit: int) -> bytes:
    """Unpack all frames of an object, to at most `limit` + 1 bytes.

    Raises:
        IntegrityError: they are damaged.
    """
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            plain = bytes(reader.read(limit + 1))
    except zstandard.ZstdError as error:
        raise wal_damaged(f"{name} cannot be decompressed ({error})") from error
    return plain


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn an IntegrityError inside the block into one that names the WAL file `name`."""
    try:
        yield
    except IntegrityError as error:
        raise wal_damaged(f"{name}: {error.message.rstrip('.')}") from error
