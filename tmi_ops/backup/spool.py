"""The files of a parallel dump, sent while it goes on: the disk holds what is being written and little more.

pg_dump writes a directory and never opens a file of data twice, so a file that no process holds open is complete. Where
sending is slower than dumping, pg_dump is stopped (SIGSTOP) until what waits has gone; the server waits with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from tmi_ops.backup.counting import data_file
from tmi_ops.backup.dump import Stop

LOOK_EVERY_S = 0.2
# Files that are complete and wait to be sent may take so many bytes.
WAITING_LIMIT = 1 << 30


def completed_files(directory: Path, dumping: Future[None], stop: Stop, waiting: Callable[[], int]) -> Iterator[Path]:
    """Each file of the dump as it is complete; those without data when the dump is.

    Args:
        waiting: how many bytes of the files given so far are not sent yet.

    Raises:
        ProgramError, BackupError: what ended the dump.
    """
    given: set[str] = set()
    paused = False
    try:
        while True:
            ended = dumping.done()
            found = sorted(directory.iterdir()) if directory.is_dir() else []
            written = set() if ended else _open_files(directory)
            for file in found:
                complete = ended or (data_file(file.name) is not None and str(file) not in written)
                if complete and file.name not in given:
                    given.add(file.name)
                    yield file
            if ended:
                dumping.result()
                return
            if (waiting() > WAITING_LIMIT) != paused:
                paused = not paused
                stop.pause(paused)
            time.sleep(LOOK_EVERY_S)
    finally:
        if paused:
            stop.pause(False)


def _open_files(directory: Path) -> set[str]:
    """Files below `directory` that some process of ours holds open. Where that cannot be told, all of them."""
    if not Path("/proc/self/fd").is_dir():
        return {str(file) for file in directory.iterdir()} if directory.is_dir() else set()
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended, or is none of ours
                found |= {str(file) for file in _open_by(process) if file.parent == directory}
    return found


def _open_by(process: Path) -> Iterator[Path]:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            yield descriptor.readlink()
