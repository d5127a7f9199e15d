"""The facts from which RPO and RTO are judged, read once. Times are aware, sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from tmi_ops.recovery.newest import ShownBy
from tmi_ops.wal.slot import SlotFacts

Means = Literal["WAL", "base backup", "logical backup"]


@dataclass(frozen=True)
class Reach:
    """The newest moment that one way of recovery can reach.

    Args:
        at: by the server's clock.
        means: WAL replayed onto a base backup, a base backup alone, or a logical backup.
        backup_id: the backup that the recovery starts from; `verified`: by a restore or a drill.
        shown_by: the source of `at`.
        missing: name of the first WAL segment that is absent although there is WAL after it; None: no gap.
        broken: why replay cannot go further although there is more WAL, a sentence; None: the WAL ends there.
    """

    at: datetime
    means: Means
    backup_id: str
    verified: bool
    shown_by: ShownBy | Literal["snapshot", "shadow"]
    missing: str | None = None
    broken: str | None = None


@dataclass(frozen=True)
class ArchiverReading:
    """archive_command or archive_library. `archived_to`: the end of the last segment that it archived; None: its last
    attempt failed, or there was none yet (`unknown`). `segment_size` in bytes.
    """

    segment_size: int
    archived_to: int | None
    unknown: bool = False


@dataclass(frozen=True)
class ServerReading:
    """The running server, queried before the archive was listed.

    Args:
        at: its clock; `clock_ahead`: how far that is ahead of this machine's.
        lsn: end of its flushed WAL; `behind`: bytes of it that the archive lacks; None: not known, or the archive is of
            another cluster or timeline.
        level: everything it had written at `at` was archived.
        slot: our slot; None: it does not exist. `keep_limit`: max_slot_wal_keep_size; None: unlimited.
        archiver: what archives WAL on the server itself; None: nothing does.
    """

    at: datetime
    clock_ahead: timedelta
    version: str
    system_identifier: str
    timeline: int | None
    lsn: int
    in_recovery: bool
    slot: SlotFacts | None
    keep_limit: int | None
    archiver: ArchiverReading | None = None
    behind: int | None = None
    level: bool = False


@dataclass(frozen=True)
class ReceiverReading:
    """The receiver's lease. `age`: time since it was written, by the store's clock; `lsn`, `timeline`, `level_at`: see
    `Lease`."""

    at_work: bool
    who: str
    since: datetime
    ended: bool
    age: timedelta
    level_at: datetime | None
    lsn: str | None = None
    timeline: int | None = None


@dataclass(frozen=True)
class LastVerification:
    """The newest successful verification of any backup."""

    backup_id: str
    kind: Literal["logical", "base"]
    at: datetime
    restore: timedelta


@dataclass(frozen=True)
class LogicalBackup:
    """A logical backup of the configured database, with rows. `restore`, `verify`: times its verification measured."""

    backup_id: str
    snapshot_at: datetime
    size: int
    database_size: int
    outcome: Literal["proven", "failed", "not proven"]
    restore: timedelta | None = None
    verify: timedelta | None = None


@dataclass(frozen=True)
class BaseWay:
    """The sizes that the time of a recovery to the newest moment depends on.

    Args:
        fetched: stored bytes of all backups of the chain; `full`: of its full backup.
        cluster_size: bytes of the restored files.
        replayed: bytes of WAL from the start of the base backup to the end of the archive.
        chain_length: 1 for a full backup.
    """

    backup_id: str
    consistent_at: datetime
    fetched: int
    full: int
    cluster_size: int
    replayed: int
    chain_length: int


@dataclass(frozen=True)
class DrillMeasure:
    """What one drill measured. `phases`: seconds by phase; sizes in bytes."""

    drill_id: str
    at: datetime
    outcome: Literal["passed", "failed"]
    sound: bool
    reasons: tuple[str, ...]
    rto: timedelta
    phases: Mapping[str, float]
    fetched: int
    restored: int
    replayed: int


@dataclass(frozen=True)
class ShadowReading:
    """The shadow that counts.

    Args:
        age: age of its report; `verified_to`: everything committed until then is replayed.
        has_been_level: it has replayed the entire archive at least once since its files were restored.
        behind: bytes of WAL that it has not replayed.
        stopped: why it cannot continue, a sentence; `missing`: the segment that it lacks, or cannot use.
        damage: what a check of it found, a sentence.
        promotion: the measured time of a promotion; None: not measured.
    """

    name: str
    host: str
    backup_id: str
    age: timedelta
    verified_to: datetime
    has_been_level: bool
    behind: int = 0
    stopped: str | None = None
    stopped_since: datetime | None = None
    missing: str | None = None
    damage: str | None = None
    promotion: timedelta | None = None


@dataclass(frozen=True)
class Usage:
    """Objects of one kind in the store. `added_*`: bytes stored since then that are still there."""

    objects: int = 0
    size: int = 0
    added_day: int = 0
    added_week: int = 0


@dataclass(frozen=True)
class RecoverabilityFacts:
    """Everything known of one environment at `read_at` (this machine's clock).

    Args:
        verified: the newest moment by verified backups only: this is what counts. None: nothing is verified.
        newest: the newest moment, verified or not; None: there is no backup.
        earliest_at: every moment from then until `newest` can be recovered; None: no usable base backup has WAL up to
            the end of the archive.
        oldest_backup_at: when the oldest backup of any kind was taken; None: there is none.
        server: None: it could not be queried, and `server_problem` says why.
        receiver: None: the cluster's WAL was never received, the lease cannot be read, or there is no base backup.
        way: the recovery from files and WAL to the newest moment; None: there is no usable base backup.
        logical: backups of the configured database, newest first, down to the second verified one.
        drills: the last few, newest first.
        failed: ids of backups whose verification failed.
        problems: other problems, and what could not be read, a sentence each.
        ambiguous: a sentence if several lines of the cluster live; None: only one does.
        shadow: the shadow that counts; None: there is none.
    """

    environment: str
    read_at: datetime
    verified: Reach | None
    newest: Reach | None
    earliest_at: datetime | None
    oldest_backup_at: datetime | None
    server: ServerReading | None
    server_problem: str | None
    receiver: ReceiverReading | None
    way: BaseWay | None
    last_verification: LastVerification | None
    logical: tuple[LogicalBackup, ...] = ()
    drills: tuple[DrillMeasure, ...] = ()
    failed: tuple[str, ...] = ()
    storage: Mapping[str, Usage] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ambiguous: str | None = None
    shadow: ShadowReading | None = None

    @property
    def server_now(self) -> datetime:
        """`read_at` by the server's clock, if known. For the age of anything that the server dated."""
        return self.read_at + (self.server.clock_ahead if self.server else timedelta(0))
