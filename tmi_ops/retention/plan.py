"""The retention plan: what is kept and why, and what is removed and why, in the order of removal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tmi_ops.retention.facts import Backup, HalfMade, WalFile
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.guarding import UnfinishedUpload


@dataclass(frozen=True)
class Decision:
    """A backup, and why it is kept or removed. Several reasons may keep it."""

    backup: Backup
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class WalDecision:
    """The WAL of one cluster. Sizes in bytes. `removed` is oldest first. `reasons` say why the rest is kept."""

    system_identifier: str
    kept: int
    kept_size: int
    removed: tuple[WalFile, ...]
    reasons: tuple[str, ...]

    @property
    def removed_size(self) -> int:
        return sum(file.size for file in self.removed)


@dataclass(frozen=True)
class RetentionPlan:
    """What retention will do. Nothing has been done yet.

    `kept` is newest first. `removed` is in the order of removal: backups that depend on a backup come before it.
    """

    policy: RetentionPolicy
    kept: tuple[Decision, ...]
    removed: tuple[Decision, ...] = ()
    wal: tuple[WalDecision, ...] = ()
    half_made: tuple[HalfMade, ...] = ()
    uploads: tuple[UnfinishedUpload, ...] = ()
    has_object_lock: bool = False

    @property
    def removes_nothing(self) -> bool:
        return not (self.removed or self.half_made or self.uploads or any(item.removed for item in self.wal))

    @property
    def freed(self) -> int:
        """Bytes of backups and WAL that are removed."""
        backups = sum(item.backup.size for item in self.removed) + sum(item.size for item in self.half_made)
        return backups + sum(item.removed_size for item in self.wal)

    @property
    def kept_size(self) -> int:
        """Bytes of backups and WAL that are kept."""
        return sum(item.backup.size for item in self.kept) + sum(item.kept_size for item in self.wal)

    def describe(self) -> str:
        """The plan in one line."""
        kinds = Counter(item.backup.kind for item in self.removed)
        backups = " and ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no"
        segments = sum(len(item.removed) for item in self.wal)
        return f"remove {backups} backups and {segments} WAL files, keep {len(self.kept)} backups"
