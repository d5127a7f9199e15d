"""Replication slots that retain WAL, and standbys that fall behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, literal
from tmi_ops.health.probe import READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.text import format_duration, format_size

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

_MEGA = 1_000_000

# On a standby, slots are measured against the replay position.
_SLOTS = """
SELECT slot_name::text AS name, slot_type AS kind, coalesce(database::text, '') AS database, active,
       coalesce(wal_status, 'unused') AS wal_status,
       coalesce(pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
       ), 0)::float8 AS held,
       greatest(age(xmin), age(catalog_xmin)) AS xmin_age
FROM pg_replication_slots
ORDER BY held DESC
"""
_SLOT_LIMIT = "SELECT setting::bigint * 1024 * 1024 AS bytes FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"
_STANDBYS = """
SELECT coalesce(nullif(application_name, ''), '(unnamed)') AS name, coalesce(host(client_addr), 'local') AS address,
       state, sync_state,
       coalesce(pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
         coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn)
       ), 0)::float8 AS behind,
       extract(epoch FROM greatest(replay_lag, flush_lag))::float8 AS lag_s
FROM pg_stat_replication
WHERE state <> 'backup'
ORDER BY behind DESC
"""
_SYNCHRONOUS = """
SELECT current_setting('synchronous_standby_names') AS names, current_setting('synchronous_commit') AS commit
"""
# Nothing to replay means no delay, however long ago the last transaction was.
_REPLAY = """
SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM clock_timestamp()
              - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::float8 AS delay_s,
       pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::float8 AS behind,
       pg_is_wal_replay_paused() AS paused,
       (SELECT count(*)::int FROM pg_stat_wal_receiver) AS receivers
"""


@dataclass(frozen=True)
class Slot:
    """A replication slot. `held`: bytes of WAL retained for it."""

    name: str
    kind: str
    database: str
    active: bool
    wal_status: str
    held: float
    xmin_age: int | None


@dataclass(frozen=True)
class Slots(Reading):
    """The slot that retains most first. `limit`: bytes a slot may retain (max_slot_wal_keep_size); None: no limit."""

    slots: tuple[Slot, ...]
    limit: int | None

    def numbers(self) -> Mapping[str, float]:
        held = self.slots[0].held if self.slots else 0.0
        return {
            "WAL held by the worst slot (MB)": held / _MEGA,
            "inactive slots": sum(not one.active for one in self.slots),
        }

    def rows(self) -> Sequence[Row]:
        return [as_row(slot, held=format_size(slot.held)) for slot in self.slots]


@dataclass(frozen=True)
class Standby:
    """A receiver of WAL. `behind`: bytes it has not replayed (or written, where it replays nothing)."""

    name: str
    address: str
    state: str
    sync_state: str
    behind: float
    lag_s: float | None


@dataclass(frozen=True)
class Standbys(Reading):
    """The standby furthest behind first. `synchronous`: the standbys commits wait for (synchronous_standby_names)."""

    standbys: tuple[Standby, ...]
    synchronous: str
    waits: bool

    @property
    def commits_hang(self) -> bool:
        """Whether commits wait for a standby that is not connected."""
        return self.waits and not any(one.sync_state in ("sync", "quorum") for one in self.standbys)

    def numbers(self) -> Mapping[str, float]:
        behind = self.standbys[0].behind if self.standbys else 0.0
        return {"standbys": len(self.standbys), "furthest behind (MB)": behind / _MEGA}

    def rows(self) -> Sequence[Row]:
        return [as_row(one, behind=format_size(one.behind)) for one in self.standbys]


@dataclass(frozen=True)
class Replay(Reading):
    """On a standby, how far replay is behind: since the last transaction replayed or, before the first, since start."""

    is_standby: bool
    delay_s: float = 0.0
    behind: float | None = None
    paused: bool = False
    receivers: int = 0

    def numbers(self) -> Mapping[str, float]:
        return {"replay delay (s)": self.delay_s} if self.is_standby else {}


def _read_slots(session: ProbeSession) -> Slots:
    limit = session.row(_SLOT_LIMIT)["bytes"]
    return Slots(session.read(Slot, _SLOTS), limit if limit >= 0 else None)


def judge_slots(reading: Slots, thresholds: Thresholds) -> Answer:
    if not reading.slots:
        return answer(Outcome.OK, "none")
    lost = [slot for slot in reading.slots if slot.wal_status == "lost"]
    endangered = [slot for slot in reading.slots if slot.wal_status == "unreserved"]
    worst = reading.slots[0]
    state = "active" if worst.active else "inactive"
    bound = f"limit {format_size(reading.limit)}" if reading.limit is not None else "no limit"
    count = format_count(len(reading.slots), "slot")
    summary = f"{count}; {worst.name} ({state}) retains {format_size(worst.held)} of WAL ({bound})"
    if lost:
        return answer(
            Outcome.CRITICAL,
            f"slot {lost[0].name} has lost WAL its consumer needs; {summary}",
            "drop the slot, then take a new base backup: the consumer cannot continue",
            (f"SELECT pg_drop_replication_slot({literal(lost[0].name)});", "tmi-ops backup base"),
        )
    status = Outcome.CRITICAL if endangered else thresholds.status(worst.held / _MEGA)
    if status is Outcome.OK:
        return answer(status, summary)
    subject = endangered[0] if endangered else worst
    remedy = [f"SELECT pg_drop_replication_slot({literal(subject.name)});  -- only if its consumer is gone for good"]
    if reading.limit is None:
        remedy += ["ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';", "SELECT pg_reload_conf();"]
    danger = "the next checkpoint may remove WAL it needs" if endangered else "until it catches up, pg_wal grows"
    return answer(status, summary, f"restart the consumer of slot {subject.name}: {danger}", tuple(remedy))


def _read_standbys(session: ProbeSession) -> Standbys:
    synchronous = session.row(_SYNCHRONOUS)
    waits = bool(synchronous["names"]) and synchronous["commit"] not in ("off", "local")
    return Standbys(session.read(Standby, _STANDBYS), synchronous["names"], waits)


def judge_standbys(reading: Standbys, thresholds: Thresholds) -> Answer:
    if reading.commits_hang:
        return answer(
            Outcome.CRITICAL,
            f"commits wait for a synchronous standby that is not connected ({reading.synchronous})",
            "start the standby; or stop waiting for it, and accept commits that only this server has",
            ("ALTER SYSTEM SET synchronous_standby_names = '';", "SELECT pg_reload_conf();"),
        )
    if not reading.standbys:
        return answer(Outcome.OK, "no receiver is connected")
    worst = reading.standbys[0]
    lag = f", {format_duration(worst.lag_s)}" if worst.lag_s is not None else ""
    count = format_count(len(reading.standbys), "receiver")
    summary = f"{count}; {worst.name} ({worst.state}) is {format_size(worst.behind)}{lag} behind"
    status = thresholds.status(worst.behind / _MEGA)
    if status is Outcome.OK:
        return answer(status, summary)
    return answer(
        status,
        summary,
        f"check {worst.name} at {worst.address}: it is too slow, its replay is paused, or a query there holds it up",
        (
            "SELECT pg_is_wal_replay_paused(), pg_last_wal_replay_lsn();  -- on the standby",
            "SELECT pg_wal_replay_resume();  -- on the standby, if paused",
        ),
    )


def _read_replay(session: ProbeSession) -> Replay:
    if not session.server.in_recovery:
        return Replay(is_standby=False)
    return Replay(is_standby=True, **session.row(_REPLAY))


def judge_replay(reading: Replay, thresholds: Thresholds) -> Answer:
    if not reading.is_standby:
        return answer(Outcome.OK, "this server is a primary")
    paused = ", replay is paused" if reading.paused else ""
    source = "" if reading.receivers else ", not connected to a primary"
    summary = (
        f"{format_duration(reading.delay_s)} behind ({format_size(reading.behind or 0)} to replay){paused}{source}"
    )
    status = thresholds.status(reading.delay_s)
    if status is Outcome.OK and reading.receivers:
        return answer(status, summary)
    if status is Outcome.OK:
        return answer(
            Outcome.WARNING,
            summary,
            "reconnect it to its primary: check primary_conninfo, the primary's pg_hba.conf, and this server's log",
            ("SHOW primary_conninfo;",),
        )
    if reading.paused:
        return answer(status, summary, "resume replay: somebody paused it", ("SELECT pg_wal_replay_resume();",))
    return answer(
        status,
        summary,
        "look for a long query that holds up replay on this server, or a disk that is too slow",
        ("SELECT pid, state, query_start FROM pg_stat_activity WHERE state <> 'idle' ORDER BY query_start;",),
    )


REPLICATION_SLOTS = Probe(
    "replication_slots",
    Area.WAL_AND_REPLICATION,
    "WAL retained by replication slots",
    "WAL retained by the worst slot; a slot that has lost WAL, or is about to, is critical",
    Thresholds(1024, 8192, "MB"),
    _read_slots,
    judge_slots,
)
REPLICATION_LAG = Probe(
    "replication_lag",
    Area.WAL_AND_REPLICATION,
    "Lag of standbys and other receivers of WAL",
    "WAL that the slowest has not replayed; commits that wait for a standby that is not connected are critical",
    Thresholds(64, 1024, "MB"),
    _read_standbys,
    judge_standbys,
    needs=(READ_ALL_STATS,),
)
REPLAY_DELAY = Probe(
    "replay_delay",
    Area.WAL_AND_REPLICATION,
    "Replay delay of a standby",
    "age of the last transaction replayed, while there is more to replay",
    Thresholds(30, 300, "s"),
    _read_replay,
    judge_replay,
)
