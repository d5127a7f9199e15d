"""Folders and files below one directory, by keys. No key leads out of it: symbolic links are never followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from tmi_ops.errors import StoreError
from tmi_ops.store.directory.refusals import bad_key
from tmi_ops.store.directory.top import Top

LONGEST_NAME = 255
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Backups hold whatever the database holds.
_OWNER_ONLY = 0o700
# How often to create a folder again that another process removes because it is empty.
_MAKINGS = 100
T = TypeVar("T")


def parts_of(key: str) -> list[str]:
    """The folders of a key and its file name.

    Raises:
        StoreError: no file can have this key, or it would lead out of the directory.
    """
    parts = key.split("/")
    for part in parts:
        try:
            size = len(part.encode())
        except UnicodeEncodeError:
            raise bad_key(key) from None
        if part in ("", ".", "..") or "\0" in part or size > LONGEST_NAME:
            raise bad_key(key)
    return parts


def with_folders(act: Callable[[], T]) -> T:
    """The result of `act`, which opens or creates folders; retried if another process removes one because it is empty.

    Raises:
        FileNotFoundError: this happened on every try.
    """
    for _ in range(1, _MAKINGS):
        with suppress(FileNotFoundError):
            return act()
    return act()


@dataclass(frozen=True)
class Tree:
    """A directory that has a file for each key.

    `below`: its folders below `top`. `lasting`: whether the folders of keys must survive a power failure.
    """

    top: Top
    below: tuple[str, ...] = ()
    lasting: bool = True

    @contextmanager
    def folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of a folder.

        Raises:
            FileNotFoundError: it does not exist and `create` is false, or it keeps being removed.
            NotADirectoryError: something else has this name, such as a symbolic link.
            StoreError: the directory itself is gone, or is another one.
        """
        descriptor = self._made(parts) if create else self._opened(parts)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def remove_empty(self, parts: Sequence[str]) -> None:
        """Remove a folder and its parents as long as they are empty, but never the top."""
        for depth in range(len(parts), 0, -1):
            try:
                with self.folder(parts[: depth - 1]) as above:
                    os.rmdir(parts[depth - 1], dir_fd=above)
            except (OSError, StoreError):
                return

    def walk(self, beginning: str, prefix: str, after: str) -> Iterator[str]:
        """The keys of all files that begin with `prefix` and sort after `after`, by their bytes.

        Args:
            beginning: the folder to search; empty, or with a trailing slash.
        """
        for name in self.names(beginning):
            key = f"{beginning}{name}"
            if not name.endswith("/"):
                if key.startswith(prefix) and key > after:
                    yield key
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from self.walk(key, prefix, after)

    def names(self, folder: str) -> list[str]:
        """The files in a folder and, with a trailing slash, its subfolders, sorted as their keys are."""
        try:
            with self.folder(folder.split("/")[:-1]) as descriptor, os.scandir(descriptor) as found:
                return sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in found
                    if _is_ours(entry)
                )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _opened(self, parts: Sequence[str]) -> int:
        descriptor = self.top.open()
        for part in (*self.below, *parts):
            above = descriptor
            try:
                descriptor = os.open(part, _FOLDER, dir_fd=above)
            finally:
                os.close(above)
        return descriptor

    def _made(self, parts: Sequence[str]) -> int:
        for attempt in range(1, _MAKINGS + 1):
            try:
                return self._opened(parts)
            except FileNotFoundError:
                if attempt == _MAKINGS:
                    raise
            whole, top = (*self.below, *parts), Tree(self.top)
            for depth in range(1, len(whole) + 1):
                with suppress(FileExistsError, FileNotFoundError), top.folder(whole[: depth - 1]) as above:
                    os.mkdir(whole[depth - 1], _OWNER_ONLY, dir_fd=above)
                    if self.lasting:
                        os.fsync(above)
        raise AssertionError


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file or a folder whose name can be part of a key."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return False
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
