"""The moment a cluster is to be brought back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tmi_ops.postgres.wal_files import format_lsn

Kind = Literal["latest", "time", "lsn", "name"]

# All kinds that PostgreSQL knows: of these one may be set, so the others are named only to be emptied.
TARGET_SETTINGS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
)


@dataclass(frozen=True)
class Target:
    """At most one of `time` (aware), `lsn` and `name` (of a restore point); with none, as far as the WAL goes.

    `inclusive`: what was committed exactly at `time`, or the record that begins at `lsn`, is part of the result.
    """

    time: datetime | None = None
    lsn: int | None = None
    name: str | None = None
    inclusive: bool = True

    @property
    def kind(self) -> Kind:
        if self.time is not None:
            return "time"
        if self.lsn is not None:
            return "lsn"
        return "latest" if self.name is None else "name"

    def words(self) -> str:
        """For a person: `2026-11-24 03:44:13 UTC`, `0/3000148`, `restore point before_import`."""
        if self.time is not None:
            return time_words(self.time)
        if self.lsn is not None:
            return f"LSN {format_lsn(self.lsn)}"
        return "the end of the WAL" if self.name is None else f"the restore point {self.name}"


def time_words(moment: datetime) -> str:
    """To the microsecond where it has any, always with its zone."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f UTC}" if moment.microsecond else f"{moment:%Y-%m-%d %H:%M:%S UTC}"


def target_settings(time: datetime | None, lsn: int | None, *, inclusive: bool) -> Mapping[str, str]:
    """What PostgreSQL is told of a target; empty for as far as the WAL goes."""
    if time is not None:
        settings = {"recovery_target_time": time.astimezone(UTC).isoformat(sep=" ")}
    elif lsn is not None:
        settings = {"recovery_target_lsn": format_lsn(lsn)}
    else:
        return {}
    return {**settings, "recovery_target_inclusive": "on" if inclusive else "off"}
