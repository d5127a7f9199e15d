"""Uploads the open segment piece by piece. See `pieces.py` for how it is stored.

WAL is reported as durable to the server once its piece is stored; pieces are put one at a time and in order. Folding
and removing come later: a fold holds the same bytes as pieces that are already stored. These are removed some seconds
after the fold is stored, because a reader may just have listed them. A crash between these steps leaves too many
objects, never too few.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tmi_ops.errors import BackupError, ObjectExistsError, OpsError
from tmi_ops.postgres.wal_files import LARGEST_SEGMENT, PARTIAL_SUFFIX, Segment, check_header
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.store.backend import IfAbsent
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import look, sealed
from tmi_ops.store.stamped import put_stamped
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links, links_from, links_of
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.partials import SO_FAR, StoredOpen
from tmi_ops.wal.pieces import due, piece_name
from tmi_ops.wal.stored_file import FileFacts, compressed, conflict, decompressed

# How long a piece stays after it was folded, for a reader that had listed it.
REMOVED_AFTER_S = 5.0
# How often records are read. With synchronous commits there are hundreds of pieces a second.
LINKS_EVERY_S = 0.5
# The level of what was stored before this receiver started. It is not folded with later pieces.
_FOUND_LEVEL = 9
_UNKNOWN = "?"


@dataclass(frozen=True)
class StoredObject:
    """An object to be removed later. `version` is the one its put returned; None if the bucket keeps no versions."""

    key: str
    version: str | None = _UNKNOWN


@dataclass(frozen=True)
class StoredPiece:
    """A part of the segment that is in the store.

    Args:
        start, end: its offsets in the segment.
        objects: the objects that hold it.
        frame: its bytes, compressed.
        metadata: the metadata of the last object.
        level: how often it was folded.
        links: the links from its records, if they were read.
    """

    start: int
    end: int
    objects: tuple[StoredObject, ...]
    frame: bytes = field(repr=False)
    metadata: dict[str, str] = field(repr=False)
    level: int = 0
    links: Links | None = None


@dataclass(frozen=True)
class _Work:
    """A piece to be put. `content`: the segment from its beginning on, to read its records. None: do not read them."""

    start: int
    end_lsn: int
    plain: bytes = field(repr=False)
    so_far: str
    content: memoryview | None = field(repr=False)
    reads_levels: bool


class OpenUpload:
    """The upload of one open segment. Belongs to the receiver's thread; what it submits runs in the pools' threads.

    Args:
        puts, folds: pools of one thread each.
        found: the partial that the store already holds. None: nothing.
        restarts_before: changes of wal_level are looked for before this LSN.
    """

    def __init__(
        self,
        store: ObjectStore,
        system_identifier: str,
        segment: Segment,
        puts: ThreadPoolExecutor,
        folds: ThreadPoolExecutor,
        found: StoredOpen | None = None,
        restarts_before: int = 0,
    ) -> None:
        self.segment = segment
        self._store, self._system_identifier = store, system_identifier
        self._puts, self._folds = puts, folds
        self._found = found
        self._restarts_before = restarts_before
        self._levels_read = False
        self._links_at = -LINKS_EVERY_S
        self._so_far = hashlib.sha256()
        self._put: Future[StoredPiece] | None = None
        self._pieces: list[StoredPiece] = []
        self._folding: tuple[slice, Future[StoredPiece]] | None = None
        self._superseded: list[tuple[float, StoredObject]] = []

    @property
    def stored(self) -> int:
        """The offset up to which the store is known to have the same bytes."""
        return self._pieces[-1].end if self._pieces else 0

    def take_over(self, opened: OpenSegment) -> Links | None:
        """Continue from the partial already in the store, once as many bytes were received, and return its links. None:
        there is no such partial, it is empty, or it is longer than what was received.

        Raises:
            WalConflictError: the received bytes do not begin with that partial.
        """
        found = self._found
        if found is None or opened.filled < found.filled:
            return None
        held = opened.part(0, found.filled)
        self.require_beginning(held)
        self._found = None
        if not held:
            self._supersede(map(StoredObject, found.listed))
            return None
        levels = self.segment.start < self._restarts_before
        links = links_from(read_records(held, found.end_lsn, levels=levels), levels_read=levels)
        self._levels_read = found.end_lsn >= self._restarts_before
        self._so_far.update(held)
        keys = [file_key(self._system_identifier, piece.name) for piece in found.pieces]
        metadata = {**found.head.metadata, SO_FAR: self._so_far.hexdigest()}
        objects = tuple(map(StoredObject, keys))
        self._pieces = [StoredPiece(0, found.filled, objects, compressed(held), metadata, _FOUND_LEVEL)]
        self._supersede(StoredObject(key) for key in found.listed if key not in keys)
        if len(keys) > 1:
            self._fold_later(slice(0, 1))
        return links

    def require_beginning(self, content: bytes | bytearray) -> None:
        """Raises:
        WalConflictError: these bytes do not begin with the partial already in the store.
        """
        if self._found is not None and self._found.filled and self._found.is_beginning_of(content) is False:
            raise conflict(f"{self.segment.name}{PARTIAL_SUFFIX}")

    def put(self, opened: OpenSegment) -> Future[StoredPiece] | None:
        """Submit a put of the bytes that the store does not have yet. None: there are none, or the partial already in
        the store was not taken over yet."""
        start = self.stored
        if self._found is not None or opened.filled <= start:
            return None
        plain = opened.part(start, opened.filled)
        self._so_far.update(plain)
        now = time.monotonic()
        reads_levels = not self._levels_read and self.segment.start < self._restarts_before
        reads = reads_levels or now - self._links_at >= LINKS_EVERY_S
        if reads:
            self._links_at = now
        self._levels_read |= opened.end >= self._restarts_before
        content = opened.view() if reads else None
        work = _Work(start, opened.end, plain, self._so_far.hexdigest(), content, reads_levels)
        self._put = self._puts.submit(self._add, work)
        return self._put

    def added(self, piece: StoredPiece) -> None:
        """Record that a piece is stored. Fold pieces that have become many, and remove those folded some time ago."""
        self._pieces.append(piece)
        if self._folding is not None and self._folding[1].done():
            self._take_in_fold(*self._folding)
        if self._folding is None and (many := due([piece.level for piece in self._pieces])) is not None:
            self._fold_later(many)
        before = time.monotonic() - REMOVED_AFTER_S
        if self._superseded and self._superseded[0][0] <= before:
            old = [item for at, item in self._superseded if at <= before]
            self._superseded = self._superseded[len(old) :]
            self._folds.submit(self._remove, old)

    def clear(self) -> None:
        """Remove all pieces, because the whole segment is stored. May run in another thread; must be the last call."""
        objects = [item for piece in self._pieces for item in piece.objects]
        objects += [item for _, item in self._superseded]
        for future in (self._put, None if self._folding is None else self._folding[1]):
            with suppress(OpsError, CancelledError):
                # A piece still being put would appear after the others were removed.
                objects += future.result().objects if future is not None else ()
        if self._found is not None:
            objects += map(StoredObject, self._found.listed)
        if objects:
            self._remove(list(dict.fromkeys(objects)))

    def _fold_later(self, many: slice) -> None:
        self._folding = many, self._folds.submit(self._fold, tuple(self._pieces[many]))

    def _take_in_fold(self, many: slice, future: Future[StoredPiece]) -> None:
        self._folding = None
        folded = self._pieces[many]
        if future.exception() is None:
            self._pieces[many] = [future.result()]
            self._supersede(item for piece in folded for item in piece.objects)
        else:  # they stay, and are not folded again
            self._pieces[many] = [replace(piece, level=piece.level + 1) for piece in folded]

    def _supersede(self, objects: Iterable[StoredObject]) -> None:
        now = time.monotonic()
        self._superseded += [(now, item) for item in objects]

    def _add(self, work: _Work) -> StoredPiece:
        links: Links | None = None
        if work.start == 0 and work.content is not None:
            check_header(work.content, self.segment, self._system_identifier, self.segment.name)
        if work.content is not None:
            records = read_records(work.content, work.end_lsn, levels=work.reads_levels)
            links = links_from(records, levels_read=work.reads_levels)
        name = piece_name(self.segment, work.start)
        metadata = {} if links is None else links.metadata()
        try:
            stored = self._store_piece(name, work.start, work.plain, work.so_far, metadata)
        except ObjectExistsError as error:
            raise _overtaken(self.segment) from error
        return replace(stored, links=links)

    def _store_piece(
        self, name: str, start: int, plain: bytes, so_far: str, metadata: dict[str, str], level: int = 0
    ) -> StoredPiece:
        end = start + len(plain)
        facts = FileFacts(len(plain), hashlib.sha256(plain).hexdigest(), self.segment.start + end)
        told = {**metadata, **facts.metadata(), SO_FAR: so_far}
        key, frame = file_key(self._system_identifier, name), compressed(plain)
        stored = put_stamped(self._store, key, sealed(self._store, frame), told, IfAbsent(), "WAL", quick=True)
        return StoredPiece(start, end, (StoredObject(key, stored.version),), frame, told, level)

    def _fold(self, pieces: Sequence[StoredPiece]) -> StoredPiece:
        first, last = pieces[0], pieces[-1]
        plain = b"".join(decompressed(piece.frame, self.segment.name, LARGEST_SEGMENT) for piece in pieces)
        name, so_far = piece_name(self.segment, first.start, last.end), last.metadata[SO_FAR]
        links = links_of(last.metadata).metadata()
        level = last.level + 1
        try:
            return self._store_piece(name, first.start, plain, so_far, links, level)
        except ObjectExistsError:
            # Stored by an earlier attempt whose response was lost.
            key = file_key(self._system_identifier, name)
            found = look(self._store, key)
            if found is None or found.metadata.get(SO_FAR) != so_far:
                raise
            there = (StoredObject(key, found.version),)
            return StoredPiece(first.start, last.end, there, compressed(plain), dict(found.metadata), level)

    def _remove(self, objects: Sequence[StoredObject]) -> None:
        """Remove objects. Errors are ignored: `prune` removes superseded objects later."""
        with suppress(OpsError):
            self._store.delete_versions((item.key, self._version_of(item)) for item in objects)

    def _version_of(self, item: StoredObject) -> str | None:
        if item.version != _UNKNOWN:
            return item.version
        head = look(self._store, item.key)
        return None if head is None else head.version


def _overtaken(segment: Segment) -> BackupError:
    return BackupError(
        f"Another process wrote the open segment {segment.name} to the archive in the meantime.",
        detail="Its version was not changed.",
        hint="see which receiver it is: `tmi-ops wal status`; this one reads the store again",
        transient=True,
    )
