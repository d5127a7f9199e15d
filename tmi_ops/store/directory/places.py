"""The files of objects: each has its label beside it, and one writer at a time.

    <directory>/<root><key>                              the object: a plain file
    <directory>/.tmi-ops-store/labels/<root><key>        its SHA-256 and metadata (`labels.py`)
    <directory>/.tmi-ops-store/unfinished/<root><key>/   what is being written (`draft.py`)
    <directory>/.tmi-ops-store/locks/                    one lock file for each 256th of the keys
    <directory>/.tmi-ops-store/id                        identifies the directory (`top.py`)

Writers of one key take turns by its lock, so checking a condition and acting on it is atomic. Readers take no lock:
they open the object, read its label, and start again if the object was replaced in between.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import FileIO

from tmi_ops.errors import StoreError
from tmi_ops.store.backend import Condition, IfAbsent, IfUnchanged, holds, missing, refused
from tmi_ops.store.directory.draft import LABEL_SUFFIX, OWNER_ONLY, Draft
from tmi_ops.store.directory.labels import Label, etag_of, label_of, parse, to_bytes, while_replacing
from tmi_ops.store.directory.top import OWN_FOLDER, Top
from tmi_ops.store.directory.tree import Tree, parts_of, with_folders

READ_SIZE = 1 << 20
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# How often a reader starts again.
_ATTEMPTS = 100
# Some days before the last datetime, so that it can be converted to every time zone.
_LATEST = datetime(9999, 12, 1, tzinfo=UTC).timestamp()
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@dataclass(frozen=True)
class Found:
    """An open object. `label` is None if it was not put by tmi_ops."""

    file: FileIO
    facts: os.stat_result
    label: Label | None

    @property
    def etag(self) -> str:
        if self.label is not None:
            return etag_of(self.label, self.facts.st_mtime_ns)
        return f'"{self.facts.st_ino:x}-{self.facts.st_mtime_ns:x}-{self.facts.st_size:x}"'

    @property
    def modified(self) -> datetime:
        return moment(self.facts)


def moment(facts: os.stat_result) -> datetime:
    """When a file was written, limited to years that a datetime holds: its owner may set any."""
    return datetime.fromtimestamp(min(max(facts.st_mtime, 0), _LATEST), UTC)


class Places:
    """One environment's objects in a directory. Every method may raise OSError."""

    def __init__(self, top: Top, root: str) -> None:
        self._root = root
        self.files = Tree(top)
        self.drafts = Tree(top, (OWN_FOLDER, "unfinished"), lasting=False)
        self._labels = Tree(top, (OWN_FOLDER, "labels"))
        self._locks = Tree(top, (OWN_FOLDER, "locks"))

    def full(self, key: str) -> str:
        """The key within the directory."""
        return f"{self._root}{key}"

    def open(self, key: str) -> Found | None:
        """An object with its label; None if it does not exist.

        Raises:
            StoreError: the object is replaced continuously.
        """
        *folders, name = parts_of(self.full(key))
        for _ in range(_ATTEMPTS):
            try:
                with self.files.folder(folders) as folder:
                    file, facts = _opened(name, folder)
                    if file is None:
                        return None
                    label = label_of(self._read_labels(folders, name), facts.st_size, partial(_sha256, file))
                    if _is_still(name, folder, facts):
                        return Found(file, facts, label)
                    file.close()
            except OSError as error:
                if error.errno in _ABSENT:
                    return None
                raise
        raise StoreError(f"{key} is replaced all the time.", hint="run the command again", transient=True)

    @contextmanager
    def there(self, key: str) -> Iterator[Found]:
        """An object for the length of a `with` block.

        Raises:
            ObjectMissingError: it does not exist.
        """
        found = self.open(key)
        if found is None:
            raise missing(key)
        with found.file:
            yield found

    def place(self, key: str, draft: Draft, label: Label, condition: Condition) -> None:
        """Move a draft to its key, if the condition holds.

        Raises:
            ObjectExistsError, ObjectChangedError: it does not.
        """
        with self._locked(key):
            found = self.open(key)
            with found.file if found else nullcontext():
                if not holds(condition, found.etag if found else None):
                    raise refused(key, condition)
                labels = while_replacing(_label(found) if found else None, label)
            self._write_labels(draft, labels)
            self._move(key, draft, only_if_absent=isinstance(condition, IfAbsent))
            if len(labels) > 1:
                # The object is in place: if the older label stays beside its own, the put has not failed.
                with suppress(OSError, StoreError):
                    self._write_labels(draft, (label,))

    def relabel(self, key: str, draft: Draft, metadata: Mapping[str, str], etag: str) -> None:
        """Replace the metadata of the object that has this ETag.

        Args:
            draft: where the label is written.

        Raises:
            ObjectMissingError: the object does not exist.
            ObjectChangedError: it has changed.
        """
        with self._locked(key), self.there(key) as found:
            if found.etag != etag:
                raise refused(key, IfUnchanged(etag))
            label = _label(found)
            self._write_labels(draft, (Label(label.sha256, label.size, dict(metadata)),))

    def remove(self, key: str) -> None:
        """Remove an object, its label and the folders left empty. An absent object counts as removed."""
        *folders, name = parts_of(self.full(key))
        with self._locked(key):
            for tree in (self.files, self._labels):
                with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError), tree.folder(folders) as folder:
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
                tree.remove_empty(folders)

    def clock(self) -> datetime:
        """The time that a file written now would have, or this machine's if nothing can be written."""
        try:
            with self._locks.folder([], create=True) as folder:
                descriptor = os.open("clock", _WRITE, OWNER_ONLY, dir_fd=folder)
            try:
                os.utime(descriptor)
                return moment(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError:
            return datetime.now(UTC)

    def _move(self, key: str, draft: Draft, *, only_if_absent: bool) -> None:
        *folders, name = draft.parts

        def move() -> None:
            with draft.tree.folder(draft.parts) as source, self.files.folder(folders, create=True) as target:
                if not only_if_absent or not _link(draft.name, source, name, target):
                    os.rename(draft.name, name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)

        try:
            with_folders(move)
        except FileExistsError:
            raise refused(key, IfAbsent()) from None

    def _read_labels(self, folders: Sequence[str], name: str) -> tuple[Label, ...]:
        try:
            with self._labels.folder(folders) as folder, FileIO(os.open(name, _READ, dir_fd=folder)) as file:
                return parse(file.readall())
        except OSError as error:
            if error.errno in _ABSENT:
                return ()
            raise

    def _write_labels(self, draft: Draft, labels: Sequence[Label]) -> None:
        *folders, name = draft.parts
        temporary = f"{draft.name}{LABEL_SUFFIX}"

        def write() -> None:
            with (
                # Once the draft is moved, another writer of this key may remove its empty folder.
                draft.tree.folder(draft.parts, create=True) as source,
                self._labels.folder(folders, create=True) as target,
            ):
                with FileIO(os.open(temporary, _WRITE | os.O_TRUNC, OWNER_ONLY, dir_fd=source), "w") as file:
                    file.write(to_bytes(labels))
                    os.fsync(file.fileno())
                os.rename(temporary, name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)

        with_folders(write)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Exclude other writers of this key, in all processes."""
        name = hashlib.sha256(self.full(key).encode()).hexdigest()[:2]
        with self._locks.folder([], create=True) as folder:
            descriptor = os.open(name, _WRITE, OWNER_ONLY, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _link(name: str, source: int, target_name: str, target: int) -> bool:
    """Hard-link a file to its key unless it is taken; False if the file system has no hard links.

    Raises:
        FileExistsError: it is taken.
    """
    try:
        os.link(name, target_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _label(found: Found) -> Label:
    """The label of an object, computed if it was not put by tmi_ops."""
    return found.label or Label(_sha256(found.file), found.facts.st_size, {})


def _opened(name: str, folder: int) -> tuple[FileIO | None, os.stat_result]:
    """A regular file; None if something else has this name."""
    descriptor = os.open(name, _READ, dir_fd=folder)
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode):
        return FileIO(descriptor), facts
    os.close(descriptor)
    return None, facts


def _is_still(name: str, folder: int, facts: os.stat_result) -> bool:
    try:
        now = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (facts.st_dev, facts.st_ino)


def _sha256(file: FileIO) -> str:
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(file.fileno(), READ_SIZE, at):
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()
