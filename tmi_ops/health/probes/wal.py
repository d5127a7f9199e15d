"""Checkpoints, the rate of WAL, archiving, and durability settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.counters import Change
from tmi_ops.health.formatting import format_count
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.versions import ARCHIVE_LIBRARY
from tmi_ops.text import format_duration, format_size

if TYPE_CHECKING:
    from datetime import datetime

    from tmi_ops.health.session import ProbeSession

_MEGA = 1_000_000
# A few checkpoints requested by hand or by backups say nothing.
_ENOUGH_CHECKPOINTS = 10

_CHECKPOINT_SETTINGS = """
SELECT current_setting('max_wal_size') AS max_wal_size, current_setting('checkpoint_timeout') AS timeout
"""
_ARCHIVER = """
SELECT archived_count::int AS archived, failed_count::int AS failed, last_archived_wal, last_archived_time,
       last_failed_wal, last_failed_time, current_setting('archive_mode') AS mode,
       extract(epoch FROM clock_timestamp() - last_failed_time)::float8 AS failed_ago_s
FROM pg_stat_archiver
"""
_ARCHIVE_COMMAND = "SELECT current_setting('archive_command') <> '' AS has_command, '' AS library"
_ARCHIVE_COMMAND_OR_LIBRARY = """
SELECT current_setting('archive_command') <> '' AS has_command, current_setting('archive_library') AS library
"""
_WAITING = "SELECT count(*)::int AS waiting FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
_DURABILITY = """
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
"""


@dataclass(frozen=True)
class Checkpoints(Reading):
    """Timed and requested checkpoints; `change` over the last days, if known."""

    timed: float
    requested: float
    change: Change | None
    max_wal_size: str
    timeout: str

    @property
    def judged(self) -> tuple[float, float]:
        """Timed and requested ones of the last days where there were enough, else since the statistics began."""
        if self.change:
            timed, requested = self.change.values["timed"], self.change.values["requested"]
            if timed + requested >= _ENOUGH_CHECKPOINTS:
                return timed, requested
        return self.timed, self.requested

    @property
    def count(self) -> float:
        return sum(self.judged)

    @property
    def requested_percent(self) -> float:
        return 100 * self.judged[1] / self.count if self.count else 0.0

    def numbers(self) -> Mapping[str, float]:
        per_hour = {}
        if self.change:
            came = self.change.values["timed"] + self.change.values["requested"]
            per_hour["checkpoints (1/h)"] = came / self.change.seconds * 3600
        return {"requested checkpoints (%)": self.requested_percent, **per_hour}


@dataclass(frozen=True)
class WalRate(Reading):
    """Bytes of WAL since the last reading."""

    bytes: float
    seconds: float

    @property
    def mb_per_second(self) -> float:
        return self.bytes / self.seconds / _MEGA

    def numbers(self) -> Mapping[str, float]:
        return {"WAL (MB/h)": self.mb_per_second * 3600}


@dataclass(frozen=True)
class Archiver(Reading):
    """`waiting`: finished segments that are not archived; None if the role may not list them."""

    mode: str
    configured: bool
    archived: int
    failed: int
    last_archived_wal: str | None
    last_archived_time: datetime | None
    last_failed_wal: str | None
    last_failed_time: datetime | None
    failed_ago_s: float | None
    waiting: int | None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        if self.last_failed_time is None:
            return False
        return self.last_archived_time is None or self.last_failed_time > self.last_archived_time

    def numbers(self) -> Mapping[str, float]:
        return {"segments waiting for the archive": self.waiting or 0, "archive failures": self.failed}


@dataclass(frozen=True)
class Durability(Reading):
    """Settings that decide whether committed transactions survive a crash."""

    settings: Mapping[str, str]

    def rows(self) -> Sequence[Row]:
        return [{"setting": name, "value": value} for name, value in self.settings.items()]


def _read_checkpoints(session: ProbeSession) -> Checkpoints:
    totals = session.window.current.groups["checkpoints"].values
    settings = session.row(_CHECKPOINT_SETTINGS)
    change = session.window.maybe("checkpoints", over_days=True)
    return Checkpoints(totals["timed"], totals["requested"], change, **settings)


def judge_checkpoints(reading: Checkpoints, thresholds: Thresholds) -> Answer:
    recent = reading.change is not None and reading.judged != (reading.timed, reading.requested)
    when = (
        f"in the last {format_duration(reading.change.seconds)}"
        if recent and reading.change
        else "since the statistics began"
    )
    summary = f"{format_count(reading.count, 'checkpoint')} {when}, {reading.requested_percent:.0f} % of them requested"
    status = thresholds.status(reading.requested_percent) if reading.count >= _ENOUGH_CHECKPOINTS else Outcome.OK
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        f"raise max_wal_size (now {reading.max_wal_size}): WAL reaches it before checkpoint_timeout "
        f"({reading.timeout}), so more full pages are written and logged than necessary. Backups and restarts also "
        "request checkpoints",
        ("ALTER SYSTEM SET max_wal_size = '4GB';", "SELECT pg_reload_conf();"),
    )


def _read_wal_rate(session: ProbeSession) -> WalRate:
    change = session.window.change("wal")
    return WalRate(change.values["bytes"], change.seconds)


def judge_wal_rate(reading: WalRate, thresholds: Thresholds) -> Answer:
    rate = format_size(reading.bytes / reading.seconds)
    summary = f"{rate}/s: {format_size(reading.bytes)} in {format_duration(reading.seconds)}"
    status = thresholds.status(reading.mb_per_second)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        "compress WAL, space out checkpoints, and find what writes: archive, slots and standbys must keep up with this",
        (
            "ALTER SYSTEM SET wal_compression = on;",
            "ALTER SYSTEM SET max_wal_size = '4GB';",
            "SELECT pg_reload_conf();",
        ),
    )


def _read_archiver(session: ProbeSession) -> Archiver:
    row: dict[str, Any] = session.row(_ARCHIVER)
    newer = session.server.major >= ARCHIVE_LIBRARY
    given = session.row(_ARCHIVE_COMMAND_OR_LIBRARY if newer else _ARCHIVE_COMMAND)
    waiting = session.permitted(_WAITING)
    return Archiver(
        **row,
        configured=given["has_command"] or bool(given["library"]),
        waiting=waiting[0]["waiting"] if waiting else None,
    )


def judge_archiver(reading: Archiver, thresholds: Thresholds) -> Answer:
    if reading.mode == "off":
        return answer(Outcome.OK, "archive_mode is off: WAL is archived only if a receiver streams it from a slot")
    if not reading.configured:
        return answer(
            Outcome.CRITICAL,
            "archive_mode is on without an archive_command: segments pile up until the disk is full",
            "set archive_command, or switch archive_mode off (needs a restart)",
            ("ALTER SYSTEM SET archive_command = 'tmi-ops wal push %p';", "SELECT pg_reload_conf();"),
        )
    waiting = f"{reading.waiting} waiting" if reading.waiting is not None else "this role may not see how many wait"
    if reading.failing:
        ago = format_duration(reading.failed_ago_s or 0)
        return answer(
            Outcome.CRITICAL,
            f"archiving of segment {reading.last_failed_wal} failed {ago} ago; {waiting}",
            "find the command's error in the server's log: the archive cannot recover to any time after this segment, "
            "and pg_wal grows",
            ("SELECT * FROM pg_stat_archiver;", "SHOW archive_command;"),
        )
    status = thresholds.status(reading.waiting or 0)
    last = f"{reading.last_archived_time:%Y-%m-%d %H:%M}" if reading.last_archived_time else "none yet"
    summary = f"{format_count(reading.archived, 'segment')} archived, the last {last}; {waiting}"
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        "find what the archive_command waits for: it archives more slowly than the database writes",
        ("SHOW archive_command;",),
    )


def _read_durability(session: ProbeSession) -> Durability:
    return Durability({row["name"]: row["setting"] for row in session.rows(_DURABILITY)})


def judge_durability(reading: Durability, thresholds: Thresholds) -> Answer:
    lossy = [name for name in ("fsync", "full_page_writes") if reading.settings.get(name) == "off"]
    status = thresholds.status(len(lossy))
    if status is not Outcome.OK:
        return answer(
            status,
            f"{' and '.join(lossy)} {'is' if len(lossy) == 1 else 'are'} off: a crash of the host can corrupt the "
            "database",
            "switch on at once; only a disposable database may run like this",
            (*(f"ALTER SYSTEM SET {name} = on;" for name in lossy), "SELECT pg_reload_conf();"),
        )
    if reading.settings.get("synchronous_commit") == "off":
        return answer(
            Outcome.WARNING,
            "synchronous_commit is off: a crash loses the latest commits",
            "switch it on, unless that loss is acceptable",
            ("ALTER SYSTEM SET synchronous_commit = on;", "SELECT pg_reload_conf();"),
        )
    return answer(
        Outcome.OK,
        f"committed transactions survive a crash (synchronous_commit is {reading.settings['synchronous_commit']})",
    )


CHECKPOINTS = Probe(
    "checkpoints",
    Area.WAL_AND_REPLICATION,
    "Checkpoints that come early",
    f"share of checkpoints that were requested, not timed, of at least {_ENOUGH_CHECKPOINTS}",
    Thresholds(50, 90, "%"),
    _read_checkpoints,
    judge_checkpoints,
)
WAL_RATE = Probe(
    "wal_rate",
    Area.WAL_AND_REPLICATION,
    "WAL written",
    "rate since the last reading",
    Thresholds(32, 128, "MB/s"),
    _read_wal_rate,
    judge_wal_rate,
)
ARCHIVER = Probe(
    "archiver",
    Area.WAL_AND_REPLICATION,
    "Archiving of WAL by archive_command",
    "finished segments that wait to be archived; a failed last attempt is critical",
    Thresholds(8, 64, "segments"),
    _read_archiver,
    judge_archiver,
)
DURABILITY = Probe(
    "durability",
    Area.WAL_AND_REPLICATION,
    "Settings with which a crash loses committed transactions",
    "how many of fsync and full_page_writes are off; synchronous_commit off is a warning",
    Thresholds(None, 1, "settings"),
    _read_durability,
    judge_durability,
)
