"""The files of a parallel dump, uploaded while it runs: the disk holds little more than what is being written.

pg_dump writes a directory and never opens a data file twice, so a file that no process holds open is complete. If the
upload is slower than the dump, pg_dump is paused (SIGSTOP) until the backlog is uploaded; its server sessions wait too.
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
# Maximum size, in bytes, of complete files that wait for upload.
WAITING_LIMIT = 1 << 30


def completed_files(directory: Path, dumping: Future[None], stop: Stop, waiting: Callable[[], int]) -> Iterator[Path]:
    """Each data file of the dump once it is complete; the other files when the dump has ended.

    Args:
        waiting: the bytes of the files yielded so far that are not uploaded yet.

    Raises:
        ProgramError, BackupError: the failure that ended the dump.
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
    """Files in `directory` that a process of this user holds open; all of them if /proc cannot tell."""
    if not Path("/proc/self/fd").is_dir():
        return {str(file) for file in directory.iterdir()} if directory.is_dir() else set()
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended, or belongs to another user
                found |= {str(file) for file in _open_by(process) if file.parent == directory}
    return found


def _open_by(process: Path) -> Iterator[Path]:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            yield descriptor.readlink()
