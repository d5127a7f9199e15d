"""Copies or moves a shadow's files while its server is stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, RecoveryError
from tmi_ops.postgres.cluster import copy_tree
from tmi_ops.recovery.point_in_time.destination import TABLESPACES, Destination
from tmi_ops.settings import Settings
from tmi_ops.shadow.place import destination_in, destination_of
from tmi_ops.text import format_size

# In addition to the copy itself: for WAL and for what is replayed.
SPARE = 1 << 30


def copy_files(settings: Settings, into: str) -> None:
    """Copy the files to `into`, laid out like `destination_in`, with shared blocks if the file system supports them.

    Raises:
        RecoveryError: the directory exists.
        DiskSpaceError: there is too little disk space.
        ProgramError: the copy failed.
    """
    source, target = destination_of(settings), destination_in(Path(into))
    if target.directory.exists():
        raise RecoveryError(
            f"{target.directory} already exists.", hint="give another directory", code=Code.DIRECTORY_TAKEN
        )
    size = _size_of(source)
    if shutil.disk_usage(into).free < size + SPARE:
        raise DiskSpaceError(f"A copy of the shadow needs {format_size(size)} in {into}.", hint="free some space there")
    for one, other in _places(source, target):
        if one.is_dir():
            copy_tree(one, other, "free some space there")
    shutil.rmtree(target.work / "feed", ignore_errors=True)
    _link_again(source, target)


def move_files(settings: Settings, into: str) -> None:
    """Move the cluster to the data directory `into`, its tablespaces beside it (`<into>-tablespaces`).

    Raises:
        RecoveryError: the directory is not empty.
        DiskSpaceError: it is on another disk with too little space.
        ProgramError: the copy to another disk failed.
    """
    source, target = destination_of(settings), _moved_to(Path(into))
    for one, other in _places(source, target):
        if not one.is_dir():
            continue
        if other.is_dir():
            _require_empty(other)
            other.rmdir()
        other.parent.mkdir(parents=True, exist_ok=True)
        try:
            one.rename(other)
        except OSError:  # another disk
            copy_tree(one, other, "free some space there")
            shutil.rmtree(one)
    _link_again(source, target)


def require_place(settings: Settings, into: Path) -> None:
    """Check before the promotion that the files can be moved to `into`, because a promotion cannot be undone.

    Raises:
        RecoveryError: the directory is not empty.
        DiskSpaceError: it is on another disk with too little space.
    """
    source, target = destination_of(settings), _moved_to(into)
    for _, other in _places(source, target):
        if other.is_dir():
            _require_empty(other)
        elif other.exists():
            raise RecoveryError(f"{other} already exists.", hint="give another directory", code=Code.DIRECTORY_TAKEN)
    around = next(place for place in (target.directory, *target.directory.absolute().parents) if place.exists())
    size = _size_of(source)
    if around.stat().st_dev != source.directory.stat().st_dev and shutil.disk_usage(around).free < size + SPARE:
        raise DiskSpaceError(
            f"Moving the shadow to {into} needs {format_size(size)} there, on another disk.",
            hint="free some space there, or give a directory on the shadow's disk",
        )


def _moved_to(directory: Path) -> Destination:
    return Destination(directory, tablespace_root=directory.with_name(f"{directory.name}-tablespaces"))


def _size_of(source: Destination) -> int:
    """Bytes of the data directory and the tablespaces beside it."""
    places = [place for place in (source.directory, source.tablespace_root) if place is not None and place.is_dir()]
    return sum(path.lstat().st_size for place in places for path in place.rglob("*") if path.is_file())


def _places(source: Destination, target: Destination) -> tuple[tuple[Path, Path], ...]:
    if source.tablespace_root is None or target.tablespace_root is None:
        raise AssertionError
    return (source.directory, target.directory), (source.tablespace_root, target.tablespace_root)


def _link_again(source: Destination, target: Destination) -> None:
    """Update the links to the tablespaces."""
    if source.tablespace_root is None or target.tablespace_root is None:
        raise AssertionError
    old = source.tablespace_root.absolute()
    for link in (target.directory / TABLESPACES).iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(old):
            place = target.tablespace_root.absolute() / link.readlink().relative_to(old)
            link.unlink()
            link.symlink_to(place)


def _require_empty(directory: Path) -> None:
    left = [path for path in directory.iterdir() if path.name != "lost+found"]
    if left:
        raise RecoveryError(
            f"{directory} is not empty.",
            detail="Nothing in it was touched.",
            hint="give another directory",
            code=Code.DIRECTORY_TAKEN,
        )
