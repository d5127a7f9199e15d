"""Reads from the log of a replaying server whether it stopped at the target, and why it exited.

Source: src/backend/access/transam/xlogrecovery.c, whose messages are the same from PostgreSQL 13 to 18.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.private import no_link

_STOPPED = re.compile(r"LOG:  recovery stopping ((?:before|after|at) .*)")
_LAST_COMPLETED = re.compile(r"LOG:  last completed transaction was at log time (\S+ [0-9:.]+)")
_NEW_TIMELINE = re.compile(r"LOG:  selected new timeline ID: (\d+)")
_LAST_RECORD = re.compile(r"LOG:  redo done at ([0-9A-F]+/[0-9A-F]+)")
_BROKE = re.compile(
    r"LOG:  ((?:invalid|incorrect|unexpected|record with|out-of-sequence|there is no contrecord|WAL file is from).*)"
)
_TOO_LOW = re.compile(r"(\w+) = (\d+) is a lower setting than on the primary server, where its value was (\d+)")
_TABLESPACE = re.compile(r'CONTEXT:  WAL redo at ([0-9A-F]+/[0-9A-F]+) for Tablespace/CREATE: (\d+) "(.*)"')
_FATAL = re.compile(r"(?:FATAL|PANIC|ERROR):  (.*)")
_ENDED_BEFORE = "recovery ended before configured recovery target was reached"
_DISK_FULL = "No space left on device"
_LINES_KEPT = 12


@dataclass(frozen=True)
class NewTablespace:
    """A tablespace that the record at `lsn` creates at `place`."""

    lsn: int
    oid: int
    place: str


@dataclass
class ServerLog:
    """Reads a log as it grows.

    `tablespace`: one whose creation by a record failed.
    `stopped`: where the server stopped at the target, such as `before commit of transaction 735, time ...`.
    `last_record`: LSN at which the last replayed record began; `broke`: why the next one is invalid.
    `too_low`: settings that were higher on the source.
    """

    path: Path
    stopped: str | None = None
    last_completed: datetime | None = None
    last_record: int | None = None
    broke: str = ""
    new_timeline: int | None = None
    too_low: dict[str, int] = field(default_factory=dict)
    ended_before_target: bool = False
    disk_full: bool = False
    tablespace: NewTablespace | None = None
    fatal: list[str] = field(default_factory=list)
    _read: int = 0
    _tail: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Read the lines that were added since the last call."""
        with open(self.path, "rb", opener=no_link) as file:
            file.seek(self._read)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._take(line)

    def restart(self) -> None:
        """Start over with a log that was truncated."""
        self._read = 0

    @property
    def last_messages(self) -> str:
        """The last messages, to find out why the server exited."""
        return " / ".join(self.fatal[-2:] or self._tail[-4:]) or "no message in its log"

    def _take(self, line: str) -> None:
        self._tail = [*self._tail, line.strip()][-_LINES_KEPT:]
        if match := _STOPPED.search(line):
            self.stopped = match[1]
        elif match := _LAST_COMPLETED.search(line):
            self.last_completed = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
        elif match := _LAST_RECORD.search(line):
            self.last_record = parse_lsn(match[1])
        elif match := _BROKE.search(line):
            self.broke = match[1]
        elif match := _NEW_TIMELINE.search(line):
            self.new_timeline = int(match[1])
        elif match := _TOO_LOW.search(line):
            self.too_low[match[1]] = int(match[3])
        elif match := _TABLESPACE.search(line):
            self.tablespace = NewTablespace(parse_lsn(match[1]), int(match[2]), match[3])
        elif match := _FATAL.search(line):
            self._take_fatal(match[1])
        self.disk_full |= _DISK_FULL in line

    def _take_fatal(self, said: str) -> None:
        self.ended_before_target |= said.startswith(_ENDED_BEFORE)
        # Our connection attempts before it is consistent cause these messages.
        if not said.startswith(("the database system is", "database system is")):
            self.fatal.append(said)
