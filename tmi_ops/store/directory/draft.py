"""An object being written to the directory: to a file of its own, then moved into place.

The file is `unfinished/<key>/<id>`, so what a crash leaves behind still shows which object it belongs to.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress

from tmi_ops.errors import StoreError
from tmi_ops.store.backend import CHECKSUM
from tmi_ops.store.digest import Bytes, Digest, RunningDigest
from tmi_ops.store.directory.labels import Label, etag_of
from tmi_ops.store.directory.refusals import failures_explained
from tmi_ops.store.directory.tree import Tree, parts_of, with_folders

LABEL_SUFFIX = ".label"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OWNER_ONLY = 0o600


class Draft:
    """A ByteSink: write chunks, then finish or abort. For one thread at a time."""

    def __init__(self, tree: Tree, key: str, where: str, place: Callable[[Draft, Label], None]) -> None:
        """Create the draft's file.

        Args:
            tree: the tree of unfinished objects.
            place: moves the written file to its key.
        """
        self.parts = parts_of(key)
        self.name = secrets.token_hex(16)
        self.tree = tree
        self._key = key
        self._where = where
        self._place = place
        self._digest = RunningDigest()
        self._ended = False
        with failures_explained(where, key):
            self._file = with_folders(self._created)

    def write(self, chunk: Bytes) -> None:
        """Write a chunk of any size.

        Raises:
            StoreError: it could not be written. Abort then.
        """
        self._digest.update(chunk)
        rest = memoryview(chunk)
        with failures_explained(self._where, self._key):
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def finish(self) -> Digest:
        """Make the object visible, whole, and return the digest of its bytes.

        Raises:
            StoreError: it could not be stored. Abort then.
        """
        digest = self._digest.result()
        self.place(Label(digest.sha256, digest.size, {CHECKSUM: digest.sha256}))
        return digest

    def place(self, label: Label) -> str:
        """Make the object visible, with this label, and return its ETag."""
        with failures_explained(self._where, self._key):
            os.utime(self._file)
            os.fsync(self._file)
            written_ns = os.fstat(self._file).st_mtime_ns
            self._place(self, label)
        self._end()
        return etag_of(label, written_ns)

    def abort(self) -> None:
        """Leave nothing behind. Safe to call at any time."""
        if not self._ended:
            self._end()

    def _created(self) -> int:
        with self.tree.folder(self.parts, create=True) as folder:
            return os.open(self.name, _NEW_FILE, OWNER_ONLY, dir_fd=folder)

    def _end(self) -> None:
        self._ended = True
        os.close(self._file)
        remove_draft(self.tree, self.parts, self.name)


def remove_draft(tree: Tree, parts: list[str], name: str) -> None:
    """Remove what is left of a draft. If it is already gone, that is not an error."""
    with suppress(OSError, StoreError), tree.folder(parts) as folder:
        for file in (name, f"{name}{LABEL_SUFFIX}"):
            with suppress(FileNotFoundError):
                os.unlink(file, dir_fd=folder)
    tree.remove_empty(parts)
