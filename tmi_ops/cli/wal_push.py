"""`tmi-ops wal push`, for archive_command. PostgreSQL waits for it with every segment, so it begins with little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tmi_ops.store.objects import ObjectStore
    from tmi_ops.wal.ahead import Notes

UPLOADS_AT_ONCE = 4


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--cluster", metavar="ID", help="System identifier, where the file's directory does not tell it.")
@click.option(
    "--settings",
    "directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The directory of the .env files; PostgreSQL calls this from its data directory.",
)
@click.option("--one", is_flag=True, help="This file alone; by default those that are ready after it go along.")
def push(file: Path, cluster: str | None, directory: Path | None, one: bool) -> None:
    """Archive one WAL FILE: a segment, .partial, .history or .backup. Says yes only when it is stored for good.

    As archive_command:  tmi-ops wal push --settings /etc/tmi-ops %p
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
    err.print(f"{pushed.name} is {'archived' if pushed.new else 'in the archive already'}.", highlight=False)
    if not one and notes is not None:
        _push_ahead(store, file, notes)


def _notes(directory: Path | None) -> Notes | None:
    from tmi_ops.wal.ahead import open_notes

    return open_notes({**_env_files(directory or Path.cwd()), **os.environ})


def _env_files(directory: Path) -> dict[str, str]:
    """What could change the settings, by its content, without the cost of understanding it."""
    from tmi_ops.settings.fleet import FILE, VARIABLE

    return {
        str(file.absolute()): file.read_text(errors="replace")
        for file in sorted([*directory.glob(".env*"), directory / os.environ.get(VARIABLE, FILE)])
        if file.is_file()
    }


def _push_ahead(store: ObjectStore, file: Path, notes: Notes) -> None:
    """Store what is ready after `file`. What fails is asked for by the server again, and fails then with its reason."""
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
