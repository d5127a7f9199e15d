"""Determines the newest recovery point in the archive, and its source. Pure.

An LSN has no time. Three sources can give one: a server that wrote nothing after it, a receiver that had caught up with
the server, and the last commit in the WAL itself. All are reliable, so the newest counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage

ShownBy = Literal["server", "receiver", "commit", "base backup"]


@dataclass(frozen=True)
class NewestMoment:
    """The newest recovery point from one base backup along one line, and what shows it."""

    at: datetime
    shown_by: ShownBy
    wal: WalRange


def newest_moment(
    facts: RecoveryFacts, line: Lineage, base: BaseManifest, witnesses: Iterable[KnownWalEnd]
) -> NewestMoment:
    """The newest recovery point of a recovery that starts from `base`.

    Args:
        facts: including the clock of the line, if it could be read.
        base: a base backup on the line.
        witnesses: those that could be read. Without any, the newest commit in the archive counts, even if nothing has
            been committed since.
    """
    wal = wal_after(base, line, facts.archive)
    known: list[tuple[datetime, ShownBy]] = [(base.newest_commit_before or base.consistent_at, "base backup")]
    # After a gap, the clock contains commits that this base backup does not lead to.
    if facts.clock and facts.clock.newest_commit and not wal.goes_on:
        known.append((facts.clock.newest_commit, "commit"))
    known += [
        (witness.at, witness.who)
        for witness in witnesses
        if witness.system_identifier == facts.system_identifier and witness.lsn <= wal.end and witness.is_of(line)
    ]
    at, shown_by = max(known, key=lambda item: item[0])
    return NewestMoment(at, shown_by, wal)
