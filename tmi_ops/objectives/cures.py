"""What would mend a promise that is at risk: as a value that a person reads and a program acts upon."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """Everything that can be done about an objective."""

    CATCH_UP_WAL = "catch up WAL"
    START_RECEIVER = "start the receiver"
    BACK_UP_INCREMENTAL = "take an incremental base backup"
    BACK_UP_BASE = "take a base backup"
    BACK_UP_LOGICAL = "take a logical backup"
    PROVE_BACKUP = "prove a backup"
    RUN_DRILL = "run a drill"
    SHORTEN_INTERVAL = "shorten the interval"
    REACH_DATABASE = "reach the database"
    SET_CLOCKS = "set the clocks"
    NAME_LINE = "say which line is the environment's"

    @property
    def is_automatic(self) -> bool:
        """Whether it is work that may be begun without a person: it ends by itself and harms nothing."""
        return self in _AUTOMATIC


_AUTOMATIC = frozenset(
    {
        Action.CATCH_UP_WAL,
        Action.BACK_UP_INCREMENTAL,
        Action.BACK_UP_BASE,
        Action.BACK_UP_LOGICAL,
        Action.PROVE_BACKUP,
        Action.RUN_DRILL,
    }
)
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
    """One thing to do. `backup_id`: which backup to prove; `detail`: what a person should know beside it."""

    action: Action
    backup_id: str | None = None
    detail: str = ""

    @property
    def command(self) -> str | None:
        """What a person types; None where it is not one command."""
        if self.action is Action.PROVE_BACKUP:
            return f"tmi-ops verify {self.backup_id}"
        return _COMMANDS.get(self.action)

    def words(self) -> str:
        """For a person: `catch up WAL: tmi-ops wal stream --catch-up`."""
        said = f"{self.action.value}, {self.detail}" if self.detail else self.action.value
        return f"{said}: {self.command}" if self.command else said
