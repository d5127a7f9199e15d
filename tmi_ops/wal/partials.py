"""Reads the partial of an open segment: its end and its bytes. See `pieces.py` for how it is stored.

A running receiver adds, folds and removes pieces at the same time, so a listed piece may be gone when it is fetched.
The pieces are then listed again, and only those not yet read are fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tmi_ops.errors import ObjectMissingError, OpsError
from tmi_ops.postgres.wal_files import LARGEST_SEGMENT, PARTIAL_SUFFIX, Segment, parse_header
from tmi_ops.store.backend import ObjectHead
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.small_objects import look
from tmi_ops.wal.layout import SUFFIX, file_key
from tmi_ops.wal.pieces import Piece, chain_from, chains, parse_piece, piece_name
from tmi_ops.wal.stored_file import FileFacts, facts_of, load_object, wal_damaged

# In the metadata of a piece: the SHA-256 of the segment's bytes from its beginning to the end of the piece.
SO_FAR = "sofar"
_LISTINGS, _READERS = 8, 8


@dataclass(frozen=True)
class StoredOpen:
    """A partial in the store.

    Args:
        pieces: its pieces in WAL order.
        end_lsn: the first LSN that it does not hold.
        head: the head of the last piece.
        listed: the keys of all its objects, including superseded ones.
    """

    segment: Segment
    pieces: tuple[Piece, ...]
    end_lsn: int
    head: ObjectHead
    listed: tuple[str, ...]

    @property
    def size(self) -> int:
        """Stored bytes."""
        return sum(piece.size for piece in self.pieces)

    @property
    def last(self) -> str:
        """The name of the last piece, whose metadata says where the partial ends."""
        return self.pieces[-1].name

    @property
    def filled(self) -> int:
        return self.end_lsn - self.segment.start

    def is_beginning_of(self, content: bytes | bytearray | memoryview) -> bool | None:
        """Whether `content` begins with the same bytes. None: the metadata does not say.

        Args:
            content: at least as many bytes as the partial holds.
        """
        held = memoryview(content)[: self.filled]
        if (so_far := self.head.metadata.get(SO_FAR)) is not None:
            return hashlib.sha256(held).hexdigest() == so_far
        if (padded := facts_of(self.head).sha256) is not None:
            return hashlib.sha256(bytes(held).ljust(self.segment.size, b"\0")).hexdigest() == padded
        return None


def find_open(
    store: ObjectStore, system_identifier: str, segment: Segment, listed: Sequence[ListedObject] | None = None
) -> StoredOpen | None:
    """The partial of an open segment. None if the store has none, or if its pieces change during every attempt.

    Args:
        listed: its objects from an existing listing.

    Raises:
        StoreError: the store failed.
    """
    for _ in range(_LISTINGS):
        listed = list_open(store, system_identifier, segment) if listed is None else listed
        either = [_ended(store, system_identifier, segment, chain, listed) for chain in chains(_pieces(listed))]
        if not either:
            return None
        found = [one for one in either if one is not None]
        if found:
            return max(found, key=lambda one: one.end_lsn)
        listed = None
    return None


def open_etag(head: ObjectHead) -> str:
    """An ETag for a partial. It changes when the bytes change, but not when pieces are folded.

    Args:
        head: the head of the last piece.
    """
    return head.metadata.get(SO_FAR) or head.etag


def list_open(store: ObjectStore, system_identifier: str, segment: Segment) -> list[ListedObject]:
    """All objects of an open segment."""
    return list(store.list_objects(open_prefix(system_identifier, segment.name)))


def open_prefix(system_identifier: str, segment_name: str) -> str:
    """The prefix of the keys of an open segment's objects."""
    return file_key(system_identifier, f"{segment_name}{PARTIAL_SUFFIX}").removesuffix(SUFFIX)


def load_open(store: ObjectStore, system_identifier: str, segment_name: str) -> tuple[bytes, FileFacts]:
    """Read a whole partial, padded with zeros to the size of a segment, and check it against its SHA-256.

    Returns:
        The content and its facts. The SHA-256 is of the bytes before the padding; None if none was stored.

    Raises:
        ObjectMissingError: the store has no such partial.
        IntegrityError: it is not what was stored.
        StoreError: the store failed, or the private key is missing or does not fit.
    """
    prefix, at_hand = open_prefix(system_identifier, segment_name), dict[str, _Read]()
    for attempt in range(_LISTINGS):
        either = chains(_pieces(store.list_objects(prefix)))
        if not either:
            break
        try:
            read = [_read_all(store, system_identifier, chain, at_hand) for chain in either]
        except ObjectMissingError:
            if attempt == _LISTINGS - 1:
                raise
            continue
        return max((_joined(segment_name, one) for one in read), key=lambda one: one[1].end_lsn or 0)
    raise ObjectMissingError(
        f"The store has no object {prefix}{SUFFIX}.", hint="see what the archive holds: `tmi-ops wal gaps`"
    )


def load_behind(
    store: ObjectStore, system_identifier: str, segment: Segment, held: bytes, filled: int
) -> tuple[bytes, FileFacts]:
    """Like `load_open` if the first `filled` bytes are already at hand: only later pieces are fetched.

    Args:
        held: the segment's bytes, at least `filled` of them.
    """
    read: list[_Read] = []
    at = filled
    while True:
        try:
            read.append(_read(store, system_identifier, Piece(piece_name(segment, at), at)))
        except ObjectMissingError:
            break
        at = read[-1].end
    if not read:
        listed = list_open(store, system_identifier, segment)
        behind = chain_from(filled, _pieces(listed))
        try:
            read = _read_all(store, system_identifier, behind, {})
        except ObjectMissingError:
            read = []
    if not read:
        return load_open(store, system_identifier, segment.name)
    first = _Read(Piece("", 0, filled), held[:filled], filled, None, None)
    return _joined(segment.name, [first, *read])


@dataclass(frozen=True)
class _Read:
    """A piece's plain bytes, up to offset `end`."""

    piece: Piece
    plain: bytes
    end: int
    end_lsn: int | None
    head: ObjectHead | None


def _pieces(listed: Iterable[ListedObject]) -> list[Piece]:
    parsed = (parse_piece(item.key.rpartition("/")[2].removesuffix(SUFFIX), item.size) for item in listed)
    return [one[1] for one in parsed if one is not None]


def _ended(
    store: ObjectStore,
    system_identifier: str,
    segment: Segment,
    chain: tuple[Piece, ...],
    listed: Sequence[ListedObject],
) -> StoredOpen | None:
    """The partial of these pieces. None: the last piece was removed in the meantime."""
    head = look(store, file_key(system_identifier, chain[-1].name))
    if head is None:
        return None
    end = facts_of(head).end_lsn
    if end is None:
        end = segment.start + _end_without_metadata(store, system_identifier, chain[-1])
    return StoredOpen(segment, chain, end, head, tuple(item.key for item in listed))


def _end_without_metadata(store: ObjectStore, system_identifier: str, piece: Piece) -> int:
    """The offset where a piece ends if the bucket was copied without metadata: from the name, or from the content. The
    start if neither is possible."""
    if piece.end is not None or piece.is_older_kind:
        return piece.end or 0
    try:
        return _read(store, system_identifier, piece).end
    except OpsError as error:
        if error.transient:
            raise
        return piece.start


def _read_all(
    store: ObjectStore, system_identifier: str, chain: Sequence[Piece], at_hand: dict[str, _Read]
) -> list[_Read]:
    """Read the pieces, the newest first because these are folded soonest."""
    wanted = [piece for piece in reversed(chain) if piece.name not in at_hand]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="pieces") as pool:
        futures = [pool.submit(_read, store, system_identifier, piece) for piece in wanted]
    for piece, future in zip(wanted, futures, strict=True):
        if future.exception() is None:
            at_hand[piece.name] = future.result()
    for future in futures:
        future.result()
    return [at_hand[piece.name] for piece in chain]


def _read(store: ObjectStore, system_identifier: str, piece: Piece) -> _Read:
    plain, head = load_object(store, system_identifier, piece.name, LARGEST_SEGMENT)
    return _Read(piece, plain, piece.start + len(plain), facts_of(head).end_lsn, head)


def _joined(segment_name: str, read: Sequence[_Read]) -> tuple[bytes, FileFacts]:
    content = bytearray()
    if len(read) == 1 and read[0].piece.is_older_kind:
        return read[0].plain, FileFacts(len(read[0].plain), None, read[0].end_lsn)
    for one in read:
        plain = one.plain
        if one.piece.is_older_kind and one.end_lsn is not None:
            plain = plain[: one.end_lsn - parse_header(plain, one.piece.name).page_address]
        if one.piece.start > len(content):
            raise wal_damaged(f"{segment_name} lacks the bytes before {one.piece.name}")
        content[one.piece.start :] = plain
    header = parse_header(content, segment_name)
    last = read[-1]
    end_lsn = header.page_address + len(content)
    if last.end_lsn not in (None, end_lsn):
        raise wal_damaged(f"{last.piece.name} does not end where its metadata says")
    so_far = None if last.head is None else last.head.metadata.get(SO_FAR)
    if so_far is not None and hashlib.sha256(content).hexdigest() != so_far:
        raise wal_damaged(f"The open segment {segment_name} was altered: its SHA-256 is not the one stored with it")
    padded = bytes(content).ljust(header.segment_size, b"\0")
    return padded, FileFacts(len(padded), so_far, end_lsn)
