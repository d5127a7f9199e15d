"""What is recoverable, read once: frozen facts from which RPO and RTO are judged. Times are aware, sizes bytes."""

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
    """The newest moment that one way of recovery brings back.

    Args:
        at: by the server's clock.
        means: WAL replayed onto a base backup, a base backup alone, or a logical backup.
        backup_id: what the recovery begins with; `proven` by a restore or drill.
        shown_by: whose word `at` rests on.
        missing: name of the first WAL segment that is absent although there is WAL after it; None: no hole.
        broken: a sentence on why no replay goes further, though the WAL does; None: it ends there.
    """

    at: datetime
    means: Means
    backup_id: str
    proven: bool
    shown_by: ShownBy | Literal["snapshot", "shadow"]
    missing: str | None = None
    broken: str | None = None


@dataclass(frozen=True)
class ServerReading:
    """The living server, asked before the archive was listed.

    Args:
        at: its clock; `clock_ahead`: how far that is ahead of this machine's.
        lsn: where its flushed WAL ended; `behind`: how much of that the archive lacks; None: another cluster's.
        level: everything it had written at `at` was in the store.
        slot: ours; None: it has none of that name. `keep_limit`: max_slot_wal_keep_size; None: unlimited.
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
    behind: int | None = None
    level: bool = False


@dataclass(frozen=True)
class ReceiverReading:
    """The receiver's lease. `age`: since it was written, by the store's clock; `lsn`, `timeline`, `level_at`: see
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
class Proof:
    """The newest proof of any backup that succeeded."""

    backup_id: str
    kind: Literal["logical", "base"]
    at: datetime
    restore: timedelta


@dataclass(frozen=True)
class LogicalBackup:
    """A logical backup of the configured database, with its rows. `restore`: as its proof measured it."""

    backup_id: str
    snapshot_at: datetime
    size: int
    database_size: int
    outcome: Literal["proven", "failed", "not proven"]
    restore: timedelta | None = None
    verify: timedelta | None = None


@dataclass(frozen=True)
class BaseWay:
    """What a recovery to the newest moment has to do: the sizes its time depends on.

    Args:
        fetched: stored bytes of all backups of the chain; `full`: of the full one that it begins with.
        cluster_size: bytes of the files that come of it.
        replayed: bytes of WAL from the beginning of the base to its end.
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
    """What one drill tells of how long recovery takes. Seconds by phase, bytes."""

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
    """The shadow whose word counts.

    Args:
        age: of its word; `verified_to`: everything committed until then is replayed.
        has_been_level: it had replayed all that was archived, at least once since it began.
        behind: bytes of WAL that it has not replayed.
        stopped: why it cannot go on, a sentence; `missing`: the segment that it lacks, or cannot use.
        damage: what a check of it found, a sentence.
        promotion: how long its promotion took when it was measured; None: it was not.
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
    """Objects of one kind in the store. `added_*`: bytes of those stored since then that are still there."""

    objects: int = 0
    size: int = 0
    added_day: int = 0
    added_week: int = 0


@dataclass(frozen=True)
class RecoverabilityFacts:
    """Everything known of one environment at `read_at` (this machine's clock).

    Args:
        proven: the newest moment by proven backups only: this is what counts. None: nothing is proven.
        newest: the newest moment, proof not considered; None: there is no backup.
        earliest_at: from then on every moment until `newest` can be reached by WAL; None: WAL leads nowhere.
        oldest_backup_at: the oldest backup of any kind that a proof has not found bad.
        server: None: it could not be asked, and `server_problem` says why.
        receiver: None: nobody ever received this cluster's WAL.
        way: to the newest moment by files and WAL; None: there is no usable base backup.
        logical: of the configured database, newest first; older than the second proven one are left out.
        drills: newest first, the last few.
        failed: ids of backups that a proof has found bad.
        problems: what could not be read or is wrong beside all that, a sentence each.
        ambiguous: a sentence on the lines of the cluster that live, where there are several; None: there is one.
        shadow: None: none runs whose word counts.
    """

    environment: str
    read_at: datetime
    proven: Reach | None
    newest: Reach | None
    earliest_at: datetime | None
    oldest_backup_at: datetime | None
    server: ServerReading | None
    server_problem: str | None
    receiver: ReceiverReading | None
    way: BaseWay | None
    last_proof: Proof | None
    logical: tuple[LogicalBackup, ...] = ()
    drills: tuple[DrillMeasure, ...] = ()
    failed: tuple[str, ...] = ()
    storage: Mapping[str, Usage] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ambiguous: str | None = None
    shadow: ShadowReading | None = None

    @property
    def server_now(self) -> datetime:
        """`read_at` by the server's clock, as far as that is known: ages of what the server dated are taken by it."""
        return self.read_at + (self.server.clock_ahead if self.server else timedelta(0))
