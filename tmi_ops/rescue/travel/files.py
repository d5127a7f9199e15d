"""The files of an open past: extracted once, copied to a twin before anything is replayed, and copied from there.

A copy shares its blocks with the twin if the file system supports reflinks (XFS, Btrfs, ZFS, APFS by `cp`); otherwise
it is a plain copy. Hard links do not work: a server writes into its files, and so into the twin's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tmi_ops.errors import DiskSpaceError, ProgramError
from tmi_ops.postgres.programs import plain_environment, program_failed
from tmi_ops.recovery.point_in_time.destination import Destination

DATA, TWIN, TABLESPACES = "data", "twin", "tablespaces"
# In addition to the copy, for WAL and what the replay adds.
SPARE = 1 << 30


def destination_in(directory: Path) -> Destination:
    return Destination(directory / DATA, tablespace_root=directory / TABLESPACES)


def keep_twin(directory: Path) -> bool:
    """Copy the files. Returns False, without a twin, if there is no room or they have tablespaces.

    Raises:
        ProgramError: they could not be copied.
    """
    if _has_tablespaces(directory) or shutil.disk_usage(directory).free < _size(directory / DATA) + SPARE:
        return False
    copy_tree(directory / DATA, directory / TWIN)
    return True


def start_again(directory: Path) -> None:
    """Replace the data with a copy of the twin.

    Raises:
        ProgramError: it could not be copied.
    """
    shutil.rmtree(directory / DATA)
    copy_tree(directory / TWIN, directory / DATA)


def copy_tree(source: Path, target: Path) -> None:
    """Raises:
    DiskSpaceError: there is not enough free space.
    ProgramError: it could not be copied.
    """
    argv = ["cp", "--archive", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=plain_environment(), cwd="/")
    if done.returncode == 0:
        return
    shutil.rmtree(target, ignore_errors=True)
    if "No space left" in done.stderr:
        raise DiskSpaceError(
            f"There is not enough free space for a copy of {source}.",
            hint="free space there, then run `tmi-ops travel` again",
        )
    raise program_failed("cp", done.returncode, done.stderr) if done.stderr else ProgramError("cp failed.")


def _has_tablespaces(directory: Path) -> bool:
    return any((directory / DATA / "pg_tblspc").iterdir())


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
