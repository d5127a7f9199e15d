"""The directory that a run recovers into: claimed while it is empty; only then may the run remove what is in it.

The claim is a file next to it that names the run: a run may be resumed on another machine, where the same path may hold
something else.
"""

from __future__ import annotations

import platform
import pwd
import shutil
import time
from pathlib import Path

from tmi_ops.errors import RecoveryError
from tmi_ops.private import write_durably
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.server import restore_settings_file
from tmi_ops.runbooks.execution import Work
from tmi_ops.runbooks.plan import Fact

# If the process that started a server is killed, the server's guard stops it.
STOPPED_WITHIN_S = 60.0


class Place(Fact):
    """A data directory, and next to it the one for tablespaces.

    `owner`: the account that will own it; None: one that can run a server there (see server.py: owner_of).
    """

    directory: str
    owner: str | None = None


class Claimed(Fact):
    """The directory was empty when the run claimed it on `host`; everything in it since belongs to the run."""

    directory: str
    host: str = ""


def place_of(place: Place) -> Destination:
    directory = Path(place.directory)
    return Destination(directory, tablespace_root=directory.with_name(f"{directory.name}-tablespaces"))


def require_empty(directory: Path, hint: str = "name another directory") -> None:
    """Refuse a directory that is not empty.

    Raises:
        RecoveryError: it is not.
    """
    destination = place_of(Place(directory=str(directory)))
    for place in (destination.directory, destination.tablespace_root):
        if place is None or not place.exists():
            continue
        if not place.is_dir() or [path for path in place.iterdir() if path.name != "lost+found"]:
            raise RecoveryError(f"{place} is not empty.", detail="Nothing in it was touched.", hint=hint)


def claim(work: Work, place: Place) -> None:
    """Claim the directory for this run; remove what an attempt that was cut off left there.

    Raises:
        RecoveryError: it holds something that is not the run's.
    """
    if is_claimed(work, place):
        empty(place)
    else:
        require_empty(Path(place.directory), "move its content elsewhere, then continue")
        mark = _mark(place)
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_durably(mark, f"{work.journal.run_id}\n".encode())
        _make(place)
    work.remember(Claimed(directory=place.directory, host=platform.node()))


def is_claimed(work: Work, place: Place) -> bool:
    """Whether the directory on this machine belongs to the run."""
    try:
        return _mark(place).read_text().strip() == work.journal.run_id
    except OSError:
        return False


def holds_cluster(work: Work, place: Place) -> bool:
    """Whether it holds a cluster that the run created."""
    return is_claimed(work, place) and (Path(place.directory) / "PG_VERSION").exists()


def clear(work: Work, place: Place) -> None:
    """Remove what the run put there; nothing if it never claimed the directory on this machine."""
    if is_claimed(work, place):
        _remove(place)
        _mark(place).unlink()


def empty(place: Place) -> None:
    """Empty the directory and give it to its owner."""
    _remove(place)
    _make(place)


def _remove(place: Place) -> None:
    destination = place_of(place)
    await_stopped(destination.directory)
    for path in (destination.directory, destination.tablespace_root):
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


def _make(place: Place) -> None:
    """A recovery runs as the owner of the directory."""
    if place.owner is None:
        return
    directory = Path(place.directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.chown(directory, place.owner, pwd.getpwnam(place.owner).pw_gid)


def _mark(place: Place) -> Path:
    directory = Path(place.directory)
    return directory.with_name(f".{directory.name}.tmi-ops-run")


def tidy(place: Place) -> Destination:
    """The place, ready for a server start: leftovers of an attempt that was cut off are removed."""
    destination = place_of(place)
    await_stopped(destination.directory)
    restore_settings_file(destination)
    shutil.rmtree(destination.work, ignore_errors=True)
    return destination


def await_stopped(directory: Path) -> None:
    """Wait until no server runs in a directory.

    Raises:
        RecoveryError: one does, and does not stop.
    """
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while (process := running_server(directory)) is not None:
        if time.monotonic() > deadline:
            raise RecoveryError(f"A server still runs in {directory}: process {process}.", hint="stop that server")
        time.sleep(0.1)


def running_server(directory: Path) -> int | None:
    """The process id of the server that runs in a data directory; None if none does."""
    try:
        process = int((directory / "postmaster.pid").read_text().split("\n", 1)[0])
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return process if b"postgres" in command else None
