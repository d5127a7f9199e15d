"""The directory that a run recovers into: claimed while it is empty, and only then the run's to clear."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.runbooks.execution import Work
from tmi_ops.runbooks.plan import Fact

# A server whose starter was killed is stopped by its guard.
STOPPED_WITHIN_S = 60.0


class Place(Fact):
    """A data directory, and beside it the one for tablespaces."""

    directory: str


class Claimed(Fact):
    """The directory was empty when the run took it; all that is in it since is the run's."""

    directory: str


def place_of(place: Place) -> Destination:
    directory = Path(place.directory)
    return Destination(directory, tablespace_root=directory.with_name(f"{directory.name}-tablespaces"))


def require_empty(directory: Path) -> None:
    """Refuse to write where there is anything.

    Raises:
        RecoveryError: there is.
    """
    destination = place_of(Place(directory=str(directory)))
    for place in (destination.directory, destination.tablespace_root):
        if place is None or not place.exists():
            continue
        if not place.is_dir() or [path for path in place.iterdir() if path.name != "lost+found"]:
            raise RecoveryError(
                f"{place} is not empty.", kept="Nothing in it was touched.", next_step="give another directory"
            )


def claim(work: Work, place: Place) -> None:
    """Take the directory for this run; what an attempt that was cut off left there is cleared away.

    Raises:
        RecoveryError: it holds what is not the run's.
    """
    if work.journal.known(Claimed) is None:
        require_empty(Path(place.directory))
        work.remember(Claimed(directory=place.directory))
    clear(work, place)


def clear(work: Work, place: Place) -> None:
    """Remove what the run put there; where it never claimed the directory, nothing."""
    if work.journal.known(Claimed) is None:
        return
    destination = place_of(place)
    await_stopped(destination.directory)
    for path in (destination.directory, destination.tablespace_root):
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


def tidy(place: Place) -> Destination:
    """The place, ready to be started: what an attempt that was cut off left of its work is gone."""
    destination = place_of(place)
    await_stopped(destination.directory)
    shutil.rmtree(destination.work, ignore_errors=True)
    return destination


def await_stopped(directory: Path) -> None:
    """Wait until no server runs in a directory.

    Raises:
        RecoveryError: one does, and does not end.
    """
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while (process := running_server(directory)) is not None:
        if time.monotonic() > deadline:
            raise RecoveryError(f"A server still runs in {directory}: process {process}.", next_step="stop it")
        time.sleep(0.1)


def running_server(directory: Path) -> int | None:
    """The process id of the server that runs in a data directory; None: none does."""
    try:
        process = int((directory / "postmaster.pid").read_text().split("\n", 1)[0])
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return process if b"postgres" in command else None
