"""The target of a recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tmi_ops.postgres.wal_files import format_lsn

Kind = Literal["latest", "time", "lsn", "name"]

# PostgreSQL allows only one of these to be set; the others are listed so that they can be cleared.
TARGET_SETTINGS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
)


@dataclass(frozen=True)
class Target:
    """At most one of `time` (aware), `lsn` and `name` (of a restore point); with none of them, the end of the WAL.

    `inclusive`: the result includes what was committed exactly at `time`, or the record that begins at `lsn`.
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

    def describe(self) -> str:
        """For display: `2026-11-24 03:44:13 UTC`, `LSN 0/3000148`, `the restore point before_import`."""
        if self.time is not None:
            return format_time(self.time)
        if self.lsn is not None:
            return f"LSN {format_lsn(self.lsn)}"
        return "the end of the WAL" if self.name is None else f"the restore point {self.name}"


def format_time(moment: datetime) -> str:
    """With microseconds if there are any, always in UTC."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f UTC}" if moment.microsecond else f"{moment:%Y-%m-%d %H:%M:%S UTC}"


def target_settings(time: datetime | None, lsn: int | None, *, inclusive: bool) -> Mapping[str, str]:
    """PostgreSQL's settings for a target; none for the end of the WAL."""
    if time is not None:
        settings = {"recovery_target_time": time.astimezone(UTC).isoformat(sep=" ")}
    elif lsn is not None:
        settings = {"recovery_target_lsn": format_lsn(lsn)}
    else:
        return {}
    return {**settings, "recovery_target_inclusive": "on" if inclusive else "off"}
