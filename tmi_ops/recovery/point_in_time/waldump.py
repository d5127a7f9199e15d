"""Reads commit times and restore points from a segment with pg_waldump."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.postgres.programs import Programs, plain_environment, program_failed
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.postgres.wal_records import restore_point_made_at

_LINE = re.compile(r"rmgr: (?P<rmgr>\w+) .*?\blsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), .*?desc: (?P<desc>.*)")
_END = re.compile(r"(?:COMMIT|ABORT)(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,6}))? UTC")
_RESTORE_POINT = "RESTORE_POINT "
_WAL_ENDS = ("error in WAL", "could not find a valid record")


@dataclass(frozen=True)
class TransactionEnd:
    """A commit or abort, at which recovery to a time can stop: its LSN and its time."""

    lsn: int
    at: datetime


@dataclass(frozen=True)
class RestorePoint:
    """A restore point and its LSN. `at`: when it was created; None: its record continues in the next segment."""

    lsn: int
    name: str
    at: datetime | None


def transaction_ends(programs: Programs, segment: Path) -> list[TransactionEnd]:
    """Commits and aborts whose record begins in this segment, in the order of the WAL.

    Raises:
        ProgramError: pg_waldump could not read the segment.
    """
    found = []
    for lsn, description in _records(programs, segment, "Transaction"):
        if match := _END.match(description):
            at = datetime.fromisoformat(match[1]).replace(tzinfo=UTC, microsecond=int((match[2] or "0").ljust(6, "0")))
            found.append(TransactionEnd(lsn, at))
    return found


def restore_points(programs: Programs, segment: Path) -> list[RestorePoint]:
    """Restore points whose record begins in this segment, in the order of the WAL.

    Raises:
        ProgramError: pg_waldump could not read the segment.
    """
    found = [
        (lsn, description.removeprefix(_RESTORE_POINT))
        for lsn, description in _records(programs, segment, "XLOG")
        if description.startswith(_RESTORE_POINT)
    ]
    content = segment.read_bytes() if found else b""
    return [RestorePoint(lsn, name, restore_point_made_at(content, lsn)) for lsn, name in found]


def record_lines(programs: Programs, directory: Path, first: str, last: str, rmgr: str) -> Iterator[str]:
    """Yield pg_waldump's lines for records of one resource manager that begin in these segments.

    Raises:
        ProgramError: pg_waldump could not read them.
    """
    argv = [str(programs.path("pg_waldump")), f"--path={directory}", f"--rmgr={rmgr}", first, last]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            argv,
            env=plain_environment({"TZ": "UTC", "LC_ALL": "C"}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            yield from process.stdout or ()
        except BaseException:
            process.kill()
            raise
        returncode = process.wait()
        errors.seek(0)
        _require_readable(returncode, errors.read())


def _records(programs: Programs, segment: Path, rmgr: str) -> list[tuple[int, str]]:
    """LSN and description of the records of one resource manager."""
    done = subprocess.run(
        [str(programs.path("pg_waldump")), f"--rmgr={rmgr}", str(segment)],
        env=plain_environment({"TZ": "UTC", "LC_ALL": "C"}),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    _require_readable(done.returncode, done.stderr)
    return [(parse_lsn(match["lsn"]), match["desc"]) for match in map(_LINE.match, done.stdout.splitlines()) if match]


def _require_readable(returncode: int, said: str) -> None:
    """pg_waldump fails at the end of nearly every segment, because the last record continues in the next one."""
    if returncode != 0 and not any(words in said for words in _WAL_ENDS):
        raise program_failed("pg_waldump", returncode, said)
