"""Find, check and create the directory of a store."""

from __future__ import annotations

from pathlib import Path

from tmi_ops import private
from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.directory.backend import DirectoryBackend
from tmi_ops.store.directory.refusals import failures_explained
from tmi_ops.store.directory.top import OWN_FOLDER, make_identity, read_identity

# Suffix of the file that records where this machine has created a store; it is kept beside the seen file.
MADE = ".made"


def open_directory(settings: StoreSettings, root: str) -> DirectoryBackend:
    """Open the store in the directory of the settings.

    Raises:
        StoreError: the directory does not exist, is not a store or cannot be read, or the settings require what no
            directory can do.
    """
    directory, where = _directory(settings), settings.describe()
    if settings.retain is not None:
        raise StoreError(
            f"A directory cannot lock objects, but TMI_OPS_RETAIN requires it of {where}.",
            hint="unset TMI_OPS_RETAIN, or use a bucket with Object Lock",
            code=Code.STORE_ADDRESS,
        )
    if root.startswith(f"{OWN_FOLDER}/"):
        raise StoreError(
            f"{OWN_FOLDER} is the store's own folder.", hint="choose another prefix", code=Code.STORE_ADDRESS
        )
    if not directory.is_dir():
        raise StoreError(
            f"The directory {directory} does not exist.",
            hint="mount its disk, or create a new store: `tmi-ops init`",
            code=Code.STORE_ADDRESS,
        )
    with failures_explained(where):
        next(directory.iterdir(), None)
        identity = read_identity(directory)
    if identity is None:
        raise StoreError(
            f"There is no store in the directory {directory}.",
            hint="mount its disk, or create a new store: `tmi-ops init`",
            code=Code.STORE_ADDRESS,
        )
    return DirectoryBackend(directory, identity, root, where)


def make_directory(settings: StoreSettings) -> None:
    """Create the directory of the settings, accessible to its owner only, and make it a store. May be repeated.

    Raises:
        StoreError: it cannot be created; or this machine created a store there before, which is missing now.
    """
    directory = _directory(settings)
    note = None if settings.seen_file is None else settings.seen_file.with_suffix(MADE)
    with failures_explained(settings.describe()):
        is_there = directory.is_dir() and read_identity(directory) is not None
        if not is_there and note is not None and note.is_file() and note.read_text().strip() == str(directory):
            raise StoreError(
                f"The store that was made in {directory} is not there.",
                hint=f"mount its disk; if it is gone for good, remove {note}, then run: tmi-ops init",
                code=Code.STORE_ADDRESS,
            )
        directory.mkdir(0o700, parents=True, exist_ok=True)
        make_identity(directory)
        if note is not None:
            private.make_directory(note.parent)
            private.write_private(note, f"{directory}\n")


def _directory(settings: StoreSettings) -> Path:
    assert settings.directory is not None  # noqa: S101 - the settings are of a store that is a directory
    return settings.directory
