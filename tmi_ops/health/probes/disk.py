"""Disk space, where the server's disks are visible from this machine; and checksum failures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer
from tmi_ops.health.formatting import format_count
from tmi_ops.health.probe import READ_ALL_SETTINGS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_size

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
    """Bytes of a filesystem the server stores data on."""

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
                "size": format_size(one.size),
                "free": format_size(one.free),
                "used (%)": round(one.percent_used, 1),
            }
            for one in self.filesystems
        ]


@dataclass(frozen=True)
class Checksums(Reading):
    """Pages that failed their checksum when read, in all databases of the cluster."""

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
            f"The disks of {session.postgres.host} are not visible from this machine, and PostgreSQL does not report "
            "disk space.",
            "monitor them on the server, and skip this probe",
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
        raise CannotTell(Cause.NOT_VISIBLE, f"The server runs here, but this user may not read {data}.")
    return DiskSpace(tuple(sorted(found.values(), key=lambda one: -one.percent_used)))


def _is_on_this_machine(backend_pid: int) -> bool:
    """Whether our own backend is a process here: an address does not reveal a container or a tunnel."""
    try:
        return b"postgres" in Path(f"/proc/{backend_pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def judge_disk(reading: DiskSpace, thresholds: Thresholds) -> Answer:
    fullest = reading.filesystems[0]
    summary = f"{fullest.percent_used:.0f} % used, {format_size(fullest.free)} free ({fullest.place}: {fullest.path})"
    status = thresholds.status(fullest.percent_used)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        "find what grows, then add disk: PostgreSQL stops when it cannot write WAL. Never delete files in pg_wal",
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
        return answer(
            Outcome.WARNING,
            "data checksums are off: corrupt pages go unnoticed, and into every backup",
            "enable them with the server stopped (an hour per TB), or restore into a cluster created with checksums",
            ("pg_checksums --enable --progress --pgdata <data directory>",),
        )
    status = thresholds.status(reading.failures)
    if status is Outcome.OK:
        return answer(status, "data checksums are on; no page has failed")
    return answer(
        status,
        f"{format_count(reading.failures, 'page')} failed the checksum in {', '.join(reading.databases)}, most "
        f"recently at {reading.last_failure}",
        "keep the old backups, and restore the newest verified backup on other hardware: the disk or its controller "
        "returns wrong bytes",
        ("tmi-ops backups", "tmi-ops verify latest"),
    )


DISK_SPACE = Probe(
    "disk_space",
    Area.STORAGE,
    "Disk space, where the server's disks are visible from this machine",
    "used share of the fullest filesystem",
    Thresholds(80, 90, "%"),
    _read_disk,
    judge_disk,
    needs=(READ_ALL_SETTINGS,),
)
CHECKSUM_FAILURES = Probe(
    "checksum_failures",
    Area.STORAGE,
    "Pages that failed their checksum",
    "pages that failed; checksums that are off are a warning",
    Thresholds(None, 1, "pages"),
    _read_checksums,
    judge_checksums,
)
