"""Cures: what helps if an objective is not met, as values that people read and programs act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What can be done about an objective. The values are in sensors' cursors and in JSON."""

    CATCH_UP_WAL = "catch up WAL"
    START_RECEIVER = "start the receiver"
    BACK_UP_INCREMENTAL = "take an incremental base backup"
    BACK_UP_BASE = "take a base backup"
    BACK_UP_LOGICAL = "take a logical backup"
    VERIFY_BACKUP = "verify a backup"
    RUN_DRILL = "run a drill"
    SHORTEN_INTERVAL = "shorten the interval"
    REACH_DATABASE = "reach the database"
    SET_CLOCKS = "set the clocks"
    NAME_LINE = "say which line is the environment's"

    @classmethod
    def _missing_(cls, value: object) -> Action | None:
        """Its value in the cursor of an older release."""
        return cls.VERIFY_BACKUP if value == "prove a backup" else None

    @property
    def is_automatic(self) -> bool:
        """Whether it may be started without a person: it ends on its own and harms nothing."""
        return self in _AUTOMATIC

    @property
    def label(self) -> str:
        """The action's name in messages."""
        return _LABELS.get(self, self.value)


_AUTOMATIC = frozenset(
    {
        Action.CATCH_UP_WAL,
        Action.BACK_UP_INCREMENTAL,
        Action.BACK_UP_BASE,
        Action.BACK_UP_LOGICAL,
        Action.VERIFY_BACKUP,
        Action.RUN_DRILL,
    }
)
_LABELS = {
    Action.VERIFY_BACKUP: "verify a backup",
    Action.SHORTEN_INTERVAL: "shorten the interval",
    Action.REACH_DATABASE: "make the database reachable",
    Action.SET_CLOCKS: "synchronize the clocks",
    Action.NAME_LINE: "choose the environment's line",
}
_COMMANDS = {
    Action.CATCH_UP_WAL: "tmi-ops wal stream --catch-up",
    Action.START_RECEIVER: "tmi-ops wal stream",
    Action.BACK_UP_INCREMENTAL: "tmi-ops backup base --incremental",
    Action.BACK_UP_BASE: "tmi-ops backup base",
    Action.BACK_UP_LOGICAL: "tmi-ops backup logical",
    Action.RUN_DRILL: "tmi-ops drill --latest",
    Action.REACH_DATABASE: "tmi-ops doctor",
    Action.SET_CLOCKS: "timedatectl set-ntp true",
    Action.NAME_LINE: "tmi-ops wal line TIMELINE",
}


@dataclass(frozen=True)
class Cure:
    """One thing to do. `backup_id`: the backup to verify. `detail`: what a person should know about it."""

    action: Action
    backup_id: str | None = None
    detail: str = ""

    @property
    def command(self) -> str | None:
        """The command; None if it is not one command."""
        if self.action is Action.VERIFY_BACKUP:
            return f"tmi-ops verify {self.backup_id}"
        return _COMMANDS.get(self.action)

    def describe(self) -> str:
        """The cure for a message, such as `catch up WAL: tmi-ops wal stream --catch-up`."""
        said = f"{self.action.label}, {self.detail}" if self.detail else self.action.label
        return f"{said}: {self.command}" if self.command else said
