"""`tmi-ops wal push`, for archive_command. PostgreSQL waits for it with every segment, so it imports little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.options import cluster_option

if TYPE_CHECKING:
    from tmi_ops.store.objects import ObjectStore
    from tmi_ops.wal.ahead import Notes

UPLOADS_AT_ONCE = 4


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@cluster_option("that of the data directory that FILE is in")
@click.option(
    "--settings",
    "directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Directory with the .env files. Needed because PostgreSQL runs archive_command in its data directory.",
)
@click.option("--one", is_flag=True, help="Archive only FILE, not the segments after it that are ready, too.")
def push(file: Path, cluster: str | None, directory: Path | None, one: bool) -> None:
    """Archive a WAL FILE: a segment, .partial, .history or .backup.

    Succeeds only once the file is stored durably. As archive_command:

    tmi-ops wal push --settings /etc/tmi-ops %p
    """
    notes = _notes(directory)
    if notes is not None and file.is_file() and notes.take(file):
        return
    from tmi_ops.cli.terminal import err
    from tmi_ops.settings import load_settings
    from tmi_ops.store.objects import open_store
    from tmi_ops.wal.push import push_wal_file

    settings = load_settings(directory=directory)
    store = open_store(settings.store, settings.environment)
    pushed = push_wal_file(store, file, cluster)
    err.print(f"{pushed.name} is {'archived' if pushed.new else 'already in the archive'}.", highlight=False)
    if not one and notes is not None:
        _push_ahead(store, file, notes)


def _notes(directory: Path | None) -> Notes | None:
    from tmi_ops.wal.ahead import open_notes

    return open_notes({**_env_files(directory or Path.cwd()), **os.environ})


def _env_files(directory: Path) -> dict[str, str]:
    """The contents of the files that the settings depend on, unparsed."""
    from tmi_ops.settings.fleet import FILE, VARIABLE

    return {
        str(file.absolute()): file.read_text(errors="replace")
        for file in sorted([*directory.glob(".env*"), directory / os.environ.get(VARIABLE, FILE)])
        if file.is_file()
    }


def _push_ahead(store: ObjectStore, file: Path, notes: Notes) -> None:
    """Archive what is ready after `file`. Ignores errors: the server asks for a file again, which shows the error."""
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import suppress

    from tmi_ops.errors import OpsError
    from tmi_ops.wal.ahead import ready_after
    from tmi_ops.wal.push import push_wal_file

    def store_ahead(ahead: Path) -> None:
        with suppress(OpsError, OSError):
            push_wal_file(store, ahead)
            notes.leave(ahead)

    with suppress(OSError):
        notes.forget_old()
    following = ready_after(file)
    if following:
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="ahead") as pool:
            list(pool.map(store_ahead, following))
