"""Disk space, where the server's disks can be seen from here; and what the disk did to the data."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.probe import READ_ALL_SETTINGS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.health.verdict import CannotTell, Cause, Reading, Row, verdict
from tmi_ops.health.words import count_words
from tmi_ops.words import size_words

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_PLACES = """
SELECT pg_backend_pid() AS pid, current_setting('data_directory') AS data,
       ARRAY(SELECT pg_tablespace_location(oid) FROM pg_tablespace
             WHERE pg_tablespace_location(oid) <> '') AS tablespaces
"""
_CHECKSUMS = """
SELECT current_setting('data_checksums') = 'on' AS enabled,
       coalesce(sum(checksum_failures), 0)::int AS failures, max(checksum_last_failure) AS last_failure,
       coalesce(array_agg(datname::text) FILTER (WHERE checksum_failures > 0), '{}') AS databases
FROM pg_stat_database
"""


@dataclass(frozen=True)
class Filesystem:
    """Bytes of the filesystem that holds a place of the server."""

    place: str
    path: str
    size: int
    free: int

    @property
    def percent_used(self) -> float:
        return 100 * (self.size - self.free) / self.size if self.size else 0.0


@dataclass(frozen=True)
class DiskSpace(Reading):
    """The fullest first; one for each filesystem."""

    filesystems: tuple[Filesystem, ...]

    def numbers(self) -> Mapping[str, float]:
        fullest = self.filesystems[0]
        return {
            "disk used (%)": fullest.percent_used,
            "disk free (GB)": min(one.free for one in self.filesystems) / 1e9,
        }

    def rows(self) -> Sequence[Row]:
        return [
            {
                "place": one.place,
                "path": one.path,
                "size": size_words(one.size),
                "free": size_words(one.free),
                "used (%)": round(one.percent_used, 1),
            }
            for one in self.filesystems
        ]


@dataclass(frozen=True)
class Checksums(Reading):
    """Pages whose checksum was wrong when they were read, in the whole cluster."""

    enabled: bool
    failures: int
    last_failure: str | None
    databases: tuple[str, ...]

    def numbers(self) -> Mapping[str, float]:
        return {"checksum failures": self.failures}


def _read_disk(session: ProbeSession) -> DiskSpace:
    places = session.row(_PLACES)
    if not _is_on_this_machine(places["pid"]):
        raise CannotTell(
            Cause.NOT_VISIBLE,
            f"The disks of {session.postgres.host} cannot be seen from here, and PostgreSQL does not tell.",
            "watch them where the server runs, and leave this probe out",
            ("TMI_OPS_HEALTH_SKIP=disk_space",),
        )
    found: dict[int, Filesystem] = {}
    data = Path(places["data"])
    named = {"data": data, "WAL": data / "pg_wal"} | {
        f"tablespace {path}": Path(path) for path in places["tablespaces"]
    }
    for place, path in named.items():
        try:
            usage, device = shutil.disk_usage(path), path.stat().st_dev
        except OSError:
            continue  # inside a data directory that only the server may enter
        found.setdefault(device, Filesystem(place, str(path), usage.total, usage.free))
    if not found:
        raise CannotTell(Cause.NOT_VISIBLE, f"The server runs here, but {data} is hidden from this user.")
    return DiskSpace(tuple(sorted(found.values(), key=lambda one: -one.percent_used)))


def _is_on_this_machine(backend_pid: int) -> bool:
    """Whether our own backend is a process here: its address would not tell a container or a tunnel from it."""
    try:
        return b"postgres" in Path(f"/proc/{backend_pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def judge_disk(reading: DiskSpace, thresholds: Thresholds) -> Answer:
    fullest = reading.filesystems[0]
    summary = f"{fullest.percent_used:.0f} % used, {size_words(fullest.free)} free ({fullest.place}: {fullest.path})"
    status = thresholds.status(fullest.percent_used)
    if status is Outcome.OK:
        return verdict(status, summary)
    return verdict(
        status,
        summary,
        "PostgreSQL stops when it cannot write WAL: see what grows, then add disk; never delete files in pg_wal",
        (
            "tmi-ops health --probe sizes --probe replication_slots --probe archiver",
            "SELECT pg_size_pretty(sum(size)) FROM pg_ls_waldir();",
        ),
    )


def _read_checksums(session: ProbeSession) -> Checksums:
    row = session.row(_CHECKSUMS)
    last = row["last_failure"]
    return Checksums(row["enabled"], row["failures"], str(last) if last else None, tuple(row["databases"]))


def judge_checksums(reading: Checksums, thresholds: Thresholds) -> Answer:
    if not reading.enabled:
        return verdict(
            Outcome.WARNING,
            "data checksums are off: a disk that returns wrong bytes goes unnoticed, into every backup",
            "with the server stopped (an hour per TB), or by a restore into a cluster made with checksums",
            ("pg_checksums --enable --progress --pgdata <data directory>",),
        )
    status = thresholds.status(reading.failures)
    if status is Outcome.OK:
        return verdict(status, "checksums are on, no page failed")
    return verdict(
        status,
        f"{count_words(reading.failures, 'page')} failed the checksum in {', '.join(reading.databases)}, the last at "
        f"{reading.last_failure}",
        "the disk or its controller returns wrong bytes: take no more backups over old ones, and restore the newest "
        "proven backup on other hardware",
        ("tmi-ops backups", "tmi-ops verify latest"),
    )


DISK_SPACE = Probe(
    "disk_space",
    Area.STORAGE,
    "Disk space, where the server's disks can be seen from here",
    "used part of the fullest filesystem",
    Thresholds(80, 90, "%"),
    _read_disk,
    judge_disk,
    needs=(READ_ALL_SETTINGS,),
)
CHECKSUM_FAILURES = Probe(
    "checksum_failures",
    Area.STORAGE,
    "Pages whose checksum was wrong",
    "pages that failed; that checksums are off is a warning",
    Thresholds(None, 1, "pages"),
    _read_checksums,
    judge_checksums,
)
