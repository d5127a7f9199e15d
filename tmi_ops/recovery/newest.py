"""The newest moment that archived WAL is known to hold, and who says so. Pure.

An LSN has no time of its own. Three can tell one: a server that wrote nothing after it, the receiver that was level
with the server, and the last commit in the WAL itself. Each of them is certain, so the newest is believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.recovery.witness import Witness
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage

ShownBy = Literal["server", "receiver", "commit", "base backup"]


@dataclass(frozen=True)
class NewestMoment:
    """Up to when, and by whose word, recovery can go from one base backup along one line."""

    at: datetime
    shown_by: ShownBy
    wal: WalRange


def newest_moment(
    facts: RecoveryFacts, line: Lineage, base: BaseManifest, witnesses: Iterable[Witness]
) -> NewestMoment:
    """The newest moment that a recovery which begins with `base` can bring back.

    Args:
        facts: with the clock of the line, where there was one to read.
        base: it lies on the line.
        witnesses: those who could be asked. Without any the newest commit in the archive counts, though nothing may
            have been committed since.
    """
    wal = wal_after(base, line, facts.archive)
    known: list[tuple[datetime, ShownBy]] = [(base.newest_commit_before or base.consistent_at, "base backup")]
    # Past a hole the clock tells of commits that this base does not lead to.
    if facts.clock and facts.clock.newest_commit and not wal.goes_on:
        known.append((facts.clock.newest_commit, "commit"))
    known += [
        (witness.at, witness.who)
        for witness in witnesses
        if witness.system_identifier == facts.system_identifier and witness.lsn <= wal.end and witness.is_of(line)
    ]
    at, shown_by = max(known, key=lambda item: item[0])
    return NewestMoment(at, shown_by, wal)
