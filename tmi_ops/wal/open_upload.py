"""The open segment on its way into the store, piece by piece. How it lies there is said in `pieces.py`.

What the server is told is durable are pieces that were put, one at a time and in their order. Folding and removing come
behind that: a fold holds the very bytes of pieces that are stored, which are removed a while after it is there, for
those who have just listed them. Whatever ends between these steps leaves too many objects, never too few.
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
from tmi_ops.store.single_put import look, sealed
from tmi_ops.store.stamped import put_stamped
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links, links_from, links_of
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.partials import SO_FAR, StoredOpen
from tmi_ops.wal.pieces import due, piece_name
from tmi_ops.wal.stored_file import FileFacts, compressed, conflict, decompressed

# Whoever listed a piece that was folded since has so long to read it.
REMOVED_AFTER_S = 5.0
# With synchronous commits there are hundreds of pieces a second; what their records say is read so often.
LINKS_EVERY_S = 0.5
# Of what lay in the store before this receiver came: it is folded with nothing that came later.
_FOUND_LEVEL = 9
_UNKNOWN = "?"


@dataclass(frozen=True)
class StoredObject:
    """An object to be removed one day; `version` as its put told, None where the bucket keeps none."""

    key: str
    version: str | None = _UNKNOWN


@dataclass(frozen=True)
class StoredPiece:
    """Bytes that are in the store.

    Args:
        start, end: which of the segment's, by their offsets.
        objects: what holds them.
        frame: they themselves, compressed.
        metadata: of the object.
        level: how often they were folded.
        links: what their records say, where it was looked at.
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
    """A piece to be put. `content`: the segment from its beginning on, to read its records; None: they are not read."""

    start: int
    end_lsn: int
    plain: bytes = field(repr=False)
    so_far: str
    content: memoryview | None = field(repr=False)
    reads_levels: bool


class OpenUpload:
    """One open segment. Of the receiver's thread; what it submits runs in the pools' threads.

    Args:
        puts, folds: of one thread each.
        found: what the store holds of it from before; None: nothing.
        restarts_before: the LSN before which changes of wal_level are looked for.
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
        """The offset up to which the store is known to hold the same bytes."""
        return self._pieces[-1].end if self._pieces else 0

    def take_over(self, opened: OpenSegment) -> Links | None:
        """Go on from what the store has of before, once so much is here, and say what its records say. None: there is
        nothing from before, or it reaches further still.

        Raises:
            WalConflictError: it is no beginning of this one.
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
        WalConflictError: what the store has of before is no beginning of these bytes.
        """
        if self._found is not None and self._found.filled and self._found.is_beginning_of(content) is False:
            raise conflict(f"{self.segment.name}{PARTIAL_SUFFIX}")

    def put(self, opened: OpenSegment) -> Future[StoredPiece] | None:
        """Have all that is here and not in the store put there. None: there is no more than the store has."""
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
        """Take in that it is stored; fold what has become many, and remove what was folded a while ago."""
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
        """Remove every piece: the whole segment is stored. For another thread, once nothing else is called any more."""
        objects = [item for piece in self._pieces for item in piece.objects]
        objects += [item for _, item in self._superseded]
        for future in (self._put, None if self._folding is None else self._folding[1]):
            with suppress(OpsError, CancelledError):
                # One that is on its way would appear after the others were removed.
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
        else:  # they stay, and are not tried again
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
            # An earlier attempt, whose answer was lost.
            key = file_key(self._system_identifier, name)
            found = look(self._store, key)
            if found is None or found.metadata.get(SO_FAR) != so_far:
                raise
            there = (StoredObject(key, found.version),)
            return StoredPiece(first.start, last.end, there, compressed(plain), dict(found.metadata), level)

    def _remove(self, objects: Sequence[StoredObject]) -> None:
        """What stays is known to be superseded; `prune` removes it."""
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
