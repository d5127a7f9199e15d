"""The settings, the files they come from, and the directory tmi_ops works in."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.errors import SettingsError
from tmi_ops.settings import env_file_names
from tmi_ops.words import size_words

# Spool files, scratch clusters' logs and the like; a restore needs the database's size on top.
LEAST_FREE = 1e9
# A scratch cluster holds the database, its WAL and the dump it was restored from.
_ROOM_FOR_A_PROOF = 2.0


def look_at_settings(patient: Patient) -> Answer:
    try:
        settings = patient.settings
    except SettingsError as error:
        return critical(error.message, "the settings cannot be used as they are", error.hint)
    except (OSError, UnicodeDecodeError) as error:
        return critical(
            f"a .env file in {patient.directory} cannot be read: {error}",
            "the file belongs to another user, or is no text",
            f"ls -l {patient.directory}/.env*  # then: chown it to the user tmi_ops runs as",
        )
    return fine(f"{settings.environment}: {settings.postgres.describe()}, {settings.store.describe()}")


def look_at_files(patient: Patient) -> Answer:
    """Whether others on this machine can read the secrets."""
    names = env_file_names(patient.settings.environment)
    files = [file for name in names if (file := patient.directory / name).is_file()]
    if not files:
        return fine("no .env file; everything comes from the process's environment or the embedded stack")
    open_ones = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    if open_ones:
        return warning(
            f"{', '.join(map(str, open_ones))} can be read by others on this machine",
            "it holds passwords, and its mode lets more than its owner read it",
            *(f"chmod 600 {file}" for file in open_ones),
        )
    return fine(", ".join(map(str, files)))


def look_at_home(patient: Patient) -> Answer:
    home = patient.settings.home
    standing = next(place for place in (home, *home.parents) if place.exists())
    if not standing.is_dir():
        return critical(
            f"{standing} is not a directory",
            f"TMI_OPS_HOME is {home}, and a file stands in its way",
            "set TMI_OPS_HOME to a directory (it is made where there is none)",
        )
    if not os.access(standing, os.W_OK | os.X_OK):
        return critical(
            f"{standing} cannot be written to",
            f"the user tmi_ops runs as (uid {os.geteuid()}) has no right there",
            f"chown {os.geteuid()} {standing}  # as root; or set TMI_OPS_HOME to a directory of its own",
        )
    usage = shutil.disk_usage(standing)
    seen = f"{home}: {size_words(usage.free)} free of {size_words(usage.total)}"
    if usage.free < LEAST_FREE:
        return critical(
            seen,
            "the disk is all but full: spool files, logs and scratch clusters have no room",
            f"du -xh --max-depth=2 {_mount_point(standing)} | sort -h | tail  # what fills it",
            "set TMI_OPS_HOME to a directory on a larger disk",
        )
    return fine(seen)


def look_at_room(patient: Patient) -> Answer:
    """Whether a backup of this database can be proven here."""
    (size,) = patient.ask("SELECT pg_database_size(%s)", patient.postgres.database)
    home = patient.settings.home
    free = shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free
    seen = f"{size_words(free)} free, the database has {size_words(size)}"
    if free < _ROOM_FOR_A_PROOF * size:
        return warning(
            seen,
            "a restore for proof would not fit beside what is there, and is not begun then",
            "set TMI_OPS_HOME to a directory on a disk with twice the database's size free",
        )
    return fine(seen)


def _mount_point(place: Path) -> Path:
    return next(parent for parent in (place, *place.parents) if parent.is_mount())


CONFIGURATION_LINKS = (
    Link("settings", "settings", Area.CONFIGURATION, look_at_settings),
    Link("env-files", "files with secrets", Area.CONFIGURATION, look_at_files, ("settings",)),
    Link("home", "disk of TMI_OPS_HOME", Area.CONFIGURATION, look_at_home, ("settings",)),
)
ROOM_LINKS = (Link("room", "room to prove a backup", Area.DATABASE, look_at_room, ("database", "home")),)
