"""The contract of `tmi_ops/store/backend.py` on a directory, safe for several processes.

`places.py` describes the layout. The store's clock is that of the file system. An ETag combines the SHA-256 with the
file's modification time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import FileIO
from pathlib import Path

from tmi_ops.errors import StoreError
from tmi_ops.store.backend import (
    CHECKSUM,
    Condition,
    Kept,
    ListedObject,
    ObjectHead,
    Put,
    Stream,
    UnfinishedUpload,
    missing,
)
from tmi_ops.store.directory.draft import LABEL_SUFFIX, Draft, remove_draft
from tmi_ops.store.directory.guide import CONNECT
from tmi_ops.store.directory.labels import Label
from tmi_ops.store.directory.places import READ_SIZE, Found, Places, moment
from tmi_ops.store.directory.refusals import failures_explained
from tmi_ops.store.directory.top import Top
from tmi_ops.store.directory.tree import parts_of


@dataclass(frozen=True)
class DirectoryBackend:
    """One environment's part of a directory. Safe for several threads and processes."""

    directory: Path
    identity: str
    root: str
    where: str
    guard: None = None

    @cached_property
    def _places(self) -> Places:
        return Places(Top(self.directory, self.identity), self.root)

    @property
    def url(self) -> str:
        return f"{self.directory.as_uri()}/{self.root}"

    def guide_values(self) -> dict[str, str]:
        return {"CONNECT": CONNECT, "ROOT": str(self.directory / self.root)}

    def head(self, key: str) -> ObjectHead | None:
        with failures_explained(self.where, key):
            found = self._places.open(key)
            if found is None:
                return None
            with found.file:
                return self._head(found)

    def get(self, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
        with failures_explained(self.where, key), self._places.there(key) as found:
            return _read(found.file, limit), self._head(found)

    def get_beginning(self, key: str, size: int) -> bytes:
        with failures_explained(self.where, key), self._places.there(key) as found:
            return _read(found.file, size)

    def stream(self, key: str) -> Stream:
        with failures_explained(self.where, key):
            found = self._places.open(key)
        if found is None:
            raise missing(key)
        return Stream(found.facts.st_size, self._chunks(key, found.file))

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        with failures_explained(self.where):
            full, start = self._places.full(prefix), self._places.full(after)
            for key in self._places.files.walk(full.rpartition("/")[0] + "/", full, start):
                if (listed := self._listed(key.removeprefix(self.root))) is not None:
                    yield listed

    def level(self, folder: str, *, after: str = "") -> tuple[list[ListedObject], list[str]]:
        objects: list[ListedObject] = []
        folders: list[str] = []
        with failures_explained(self.where):
            for name in self._places.files.names(self._places.full(folder)):
                key = f"{folder}{name}"
                if not name.endswith("/"):
                    listed = self._listed(key) if key > after else None
                    objects += [listed] if listed is not None else []
                elif (key > after or after.startswith(key)) and self._holds_any(key, after):
                    folders.append(name.rstrip("/"))
        return objects, sorted(folders)

    def put(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        condition: Condition = None,
        *,
        quick: bool = False,
    ) -> Put:
        sha256 = hashlib.sha256(body).hexdigest()
        draft = self._draft(key, condition)
        try:
            draft.write(body)
            etag = draft.place(Label(sha256, len(body), {**(metadata or {}), CHECKSUM: sha256}))
        except BaseException:
            draft.abort()
            raise
        return Put(etag)

    def upload(self, key: str) -> Draft:
        return self._draft(key, None)

    def restamp(self, key: str, metadata: Mapping[str, str], etag: str) -> None:
        draft = self._draft(key, None)  # provides a place to write the label
        try:
            with failures_explained(self.where, key):
                self._places.relabel(key, draft, metadata, etag)
        finally:
            draft.abort()

    def delete(self, stored: Sequence[tuple[str, str | None]]) -> list[Kept]:
        kept: list[Kept] = []
        for key, _ in stored:
            try:
                with failures_explained(self.where, key):
                    self._places.remove(key)
            except StoreError as error:
                kept.append(Kept(key, error.message.rstrip(".")))
        return kept

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """`begun` is the time of the last write, so an upload in progress counts as young."""
        with failures_explained(self.where):
            now = self._places.clock()
            for path in self._places.drafts.walk("", self._places.full(prefix), ""):
                place, _, name = path.rpartition("/")
                if name.endswith(LABEL_SUFFIX):
                    continue
                try:
                    with self._places.drafts.folder(place.split("/")) as folder:
                        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except OSError:
                    continue
                begun = moment(facts)
                yield UnfinishedUpload(place.removeprefix(self.root), name, begun, (now - begun).total_seconds())

    def abort(self, upload: UnfinishedUpload) -> None:
        parts_of(upload.upload_id)
        remove_draft(self._places.drafts, parts_of(self._places.full(upload.key)), upload.upload_id)

    def clock(self) -> datetime:
        return self._places.clock()

    def watch(self, note: Callable[[str], None]) -> Callable[[], None]:
        """No request costs money here."""
        return lambda: None

    def _head(self, found: Found) -> ObjectHead:
        return ObjectHead(
            size=found.facts.st_size,
            etag=found.etag,
            metadata=found.label.metadata if found.label else {},
            modified=found.modified,
            age_s=(self._places.clock() - found.modified).total_seconds(),
        )

    def _listed(self, key: str) -> ListedObject | None:
        found = self._places.open(key)
        if found is None:
            return None
        with found.file:
            return ListedObject(key, found.facts.st_size, found.modified, found.etag)

    def _holds_any(self, folder: str, after: str) -> bool:
        full = self._places.full(folder)
        return next(self._places.files.walk(full, full, self._places.full(after)), None) is not None

    def _chunks(self, key: str, file: FileIO) -> Iterator[bytes]:
        with file, failures_explained(self.where, key):
            while chunk := file.read(READ_SIZE):
                yield chunk

    def _draft(self, key: str, condition: Condition) -> Draft:
        places = self._places
        return Draft(
            places.drafts,
            places.full(key),
            self.where,
            lambda draft, label: places.place(key, draft, label, condition),
        )


def _read(file: FileIO, limit: int | None) -> bytes:
    chunks: list[bytes] = []
    rest = limit
    while chunk := file.read(READ_SIZE if rest is None else min(rest, READ_SIZE)):
        chunks.append(chunk)
        if rest is not None:
            rest -= len(chunk)
    return b"".join(chunks)
