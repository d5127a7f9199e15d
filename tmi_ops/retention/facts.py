"""The facts for retention: every backup, hold and WAL file of an environment, reduced to what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, SEGMENT_NAME, Segment
from tmi_ops.store.guarding import UnfinishedUpload
from tmi_ops.store.manifest import Kind
from tmi_ops.wal.layout import SUFFIX
from tmi_ops.wal.lineage import Lineage

VerificationState = Literal["proven", "failed", "not proven"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold on a backup, with the reason that a person gave."""

    backup_id: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that exists.

    `subject`: the database or cluster; the policy counts per subject. `taken_at`: when it was taken, from its manifest.
    `stored_at`: when its manifest was stored, by the store's clock; in a copied bucket, when it was copied. `chain`:
    the backups it depends on. `size`: stored bytes of its folder. A base backup also has its cluster, timeline and
    LSNs.
    """

    backup_id: str
    kind: Kind
    subject: str
    taken_at: datetime
    size: int
    objects: int
    verification: VerificationState
    chain: tuple[str, ...] = ()
    hold: Hold | None = None
    locked_until: datetime | None = None
    system_identifier: str = ""
    timeline: int = 0
    start_lsn: int = 0
    stop_lsn: int = 0
    stored_at: datetime | None = None

    @property
    def here_since(self) -> datetime:
        """The later of `taken_at` and `stored_at`. A backup must have been in the store for the recovery window before
        it is too old to keep."""
        return max(self.taken_at, self.stored_at or self.taken_at)


@dataclass(frozen=True, slots=True)
class WalFile:
    """A segment, a piece of a partial, or a chapter. It concerns the WAL of a timeline from LSN `start` to `end`."""

    key: str
    size: int
    stored_at: datetime
    timeline: int
    start: int
    end: int

    @property
    def segment(self) -> Segment:
        """The segment; valid only if `is_whole`."""
        return Segment(self.timeline, self.start, self.end - self.start)

    @property
    def is_open(self) -> bool:
        """Whether it belongs to a partial, which is superseded once the whole segment is archived."""
        return PARTIAL_SUFFIX in self.key

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole segment."""
        return SEGMENT_NAME.fullmatch(self.key.rpartition("/")[2].removesuffix(SUFFIX)) is not None


@dataclass(frozen=True)
class ClusterWal:
    """The archived WAL of one cluster, and the line of every timeline whose history the archive has."""

    system_identifier: str
    files: tuple[WalFile, ...]
    lines: Mapping[int, Lineage]


@dataclass(frozen=True, slots=True)
class HalfMade:
    """A folder without a manifest, so not a backup. `touched_at`: when anything was last stored in it."""

    backup_id: str
    size: int
    objects: int
    touched_at: datetime


@dataclass(frozen=True)
class RetentionFacts:
    """Everything that retention knows. `store_now`: the time by the store's clock. `newest_at`: when the newest backup
    or WAL was stored.

    Always complete: if anything cannot be read, there are no facts.
    """

    backups: tuple[Backup, ...]
    wal: tuple[ClusterWal, ...] = ()
    half_made: tuple[HalfMade, ...] = ()
    uploads: tuple[UnfinishedUpload, ...] = field(default=())
    store_now: datetime | None = None
    newest_at: datetime | None = None
    has_object_lock: bool = False
