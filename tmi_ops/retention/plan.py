"""The plan: what stays and why, what goes and why, in the order in which it goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tmi_ops.retention.facts import Backup, HalfMade, WalFile
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.guarding import UnfinishedUpload


@dataclass(frozen=True)
class Decision:
    """One backup and why it stays or goes; several reasons may keep it."""

    backup: Backup
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class WalDecision:
    """The WAL of one cluster: sizes in bytes; `removed` oldest first; `reasons` say what keeps the rest."""

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

    `kept` newest first. `removed` in the order of removal: what builds upon a backup before that backup.
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
        """Bytes that go."""
        backups = sum(item.backup.size for item in self.removed) + sum(item.size for item in self.half_made)
        return backups + sum(item.removed_size for item in self.wal)

    @property
    def kept_size(self) -> int:
        """Bytes that stay, of backups and WAL."""
        return sum(item.backup.size for item in self.kept) + sum(item.kept_size for item in self.wal)

    def describe(self) -> str:
        """One line."""
        kinds = Counter(item.backup.kind for item in self.removed)
        backups = " and ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no"
        segments = sum(len(item.removed) for item in self.wal)
        return f"remove {backups} backups and {segments} WAL files, keep {len(self.kept)} backups"
