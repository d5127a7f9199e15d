"""Checks of the settings, the files they come from, and TMI_OPS_HOME."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.errors import SettingsError
from tmi_ops.settings import env_file_names
from tmi_ops.text import format_size

# For spool files and logs of scratch clusters; a restore needs the size of the database in addition.
LEAST_FREE = 1e9
# A scratch cluster holds the database, its WAL and the dump it was restored from.
_ROOM_TO_VERIFY = 2.0


def look_at_settings(context: DiagnosisContext) -> Answer:
    try:
        settings = context.settings
    except SettingsError as error:
        return critical(error.message, "the settings are not valid", error.hint)
    except (OSError, UnicodeDecodeError) as error:
        return critical(
            f"a .env file in {context.directory} cannot be read: {error}",
            "the file belongs to another user, or is not a text file",
            f"ls -l {context.directory}/.env*  # then chown it to the user that runs tmi_ops",
        )
    return fine(f"{settings.environment}: {settings.postgres.describe()}, {settings.store.describe()}")


def look_at_files(context: DiagnosisContext) -> Answer:
    """Whether other users of this machine can read the secrets."""
    names = env_file_names(context.settings.environment)
    files = [file for name in names if (file := context.directory / name).is_file()]
    if not files:
        return fine("no .env file; all settings come from the process or the embedded stack")
    open_ones = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    if open_ones:
        return warning(
            f"other users of this machine can read {', '.join(map(str, open_ones))}",
            "the file holds passwords, and its mode lets others than its owner read it",
            *(f"chmod 600 {file}" for file in open_ones),
        )
    return fine(", ".join(map(str, files)))


def look_at_home(context: DiagnosisContext) -> Answer:
    home = context.settings.home
    standing = next(place for place in (home, *home.parents) if place.exists())
    if not standing.is_dir():
        return critical(
            f"{standing} is not a directory",
            f"TMI_OPS_HOME is {home}, and there is a file of that name",
            "set TMI_OPS_HOME to a directory (tmi_ops creates it)",
        )
    if not os.access(standing, os.W_OK | os.X_OK):
        return critical(
            f"{standing} is not writable",
            f"the user that runs tmi_ops (uid {os.geteuid()}) may not write there",
            f"chown {os.geteuid()} {standing}  # as root; or set TMI_OPS_HOME to another directory",
        )
    usage = shutil.disk_usage(standing)
    seen = f"{home}: {format_size(usage.free)} free of {format_size(usage.total)}"
    if usage.free < LEAST_FREE:
        return critical(
            seen,
            "the disk is nearly full: there is no room for spool files, logs and scratch clusters",
            f"du -xh --max-depth=2 {_mount_point(standing)} | sort -h | tail  # shows what fills it",
            "set TMI_OPS_HOME to a directory on a larger disk",
        )
    return fine(seen)


def look_at_room(context: DiagnosisContext) -> Answer:
    """Whether there is room to verify a backup of this database."""
    (size,) = context.ask("SELECT pg_database_size(%s)", context.postgres.database)
    home = context.settings.home
    free = shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free
    seen = f"{format_size(free)} free; the database has {format_size(size)}"
    if free < _ROOM_TO_VERIFY * size:
        return warning(
            seen,
            "a restore to verify a backup would not fit, so verification would refuse to start",
            "set TMI_OPS_HOME to a directory on a disk with twice the size of the database free",
        )
    return fine(seen)


def _mount_point(place: Path) -> Path:
    return next(parent for parent in (place, *place.parents) if parent.is_mount())


CONFIGURATION_LINKS = (
    Link("settings", "settings", Area.CONFIGURATION, look_at_settings),
    Link("env-files", "files with secrets", Area.CONFIGURATION, look_at_files, ("settings",)),
    Link("home", "disk of TMI_OPS_HOME", Area.CONFIGURATION, look_at_home, ("settings",)),
)
ROOM_LINKS = (Link("room", "room to verify a backup", Area.DATABASE, look_at_room, ("database", "home")),)
