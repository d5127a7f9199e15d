"""Breaks: points in the archived WAL that no replay can pass, although there is WAL after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tmi_ops.postgres.wal_files import format_lsn

BreakKind = Literal["minimal", "unlinked"]


@dataclass(frozen=True, order=True)
class Break:
    """A point on `timeline` at which replay ends. Recovering later WAL needs a base backup taken after `lsn`.

    `minimal`: from there on the server ran with wal_level = minimal, which leaves changes out of the WAL.
    `unlinked`: the WAL after it does not continue the WAL before it.
    """

    timeline: int
    lsn: int
    kind: BreakKind

    def describe(self) -> str:
        """The break as a sentence."""
        if self.kind == "minimal":
            return (
                f"At {format_lsn(self.lsn)} on timeline {self.timeline} the server was restarted with wal_level = "
                "minimal: the WAL after it does not contain every change."
            )
        return (
            f"At {format_lsn(self.lsn)} on timeline {self.timeline} the WAL does not continue the WAL before it: it "
            "belongs to another history, or pg_resetwal was run."
        )
