"""What can be recovered to: from the oldest base backup to the newest moment that the archive holds. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.backup.wal.lineage import Lineage
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.store.manifest import BaseManifest


@dataclass(frozen=True)
class SourceMoment:
    """Where the living server's WAL ended at a time that was read before the archive was."""

    system_identifier: str
    lsn: int
    at: datetime


@dataclass(frozen=True)
class RecoveryWindow:
    """The bases, newest first, and the newest moment, by time and by LSN."""

    bases: tuple[BaseManifest, ...]
    newest_at: datetime
    newest_lsn: int

    @property
    def earliest_at(self) -> datetime:
        return self.bases[-1].consistent_at


def recovery_window(facts: RecoveryFacts, source: SourceMoment | None) -> RecoveryWindow:
    """The window of the newest timeline.

    Args:
        facts: with the clock of that line.
        source: None: the living server could not be asked. Then the newest commit in the archive counts as the newest
            moment, though nothing may have been committed since.

    Raises:
        RecoveryError: no base backup of that line can be used.
    """
    line = choose_line(facts, None)
    bases = tuple(base for base in bases_on(facts, line) if _usable(base, facts))
    if not bases:
        raise RecoveryError(
            "No base backup of the newest timeline can be used, so there is nothing to drill.",
            next_step="take one: `tmi-ops backup base`",
        )
    end = _archived_end(facts, line, bases[0])
    newest = bases[0].consistent_at
    if facts.clock and facts.clock.newest_commit:
        newest = max(newest, facts.clock.newest_commit)
    if source and source.system_identifier == facts.system_identifier and source.lsn <= end:
        newest = max(newest, source.at)
    return RecoveryWindow(bases, newest, end)


def random_target(window: RecoveryWindow, newest_commit: datetime | None, seed: int) -> Target:
    """A moment inside the window, the same for the same window and seed; the end of the WAL when it has no inside.

    Args:
        newest_commit: PostgreSQL recovers to a time only when something was committed then or later.
    """
    if newest_commit is None or newest_commit <= window.earliest_at:
        return Target()
    span = (newest_commit - window.earliest_at) // timedelta(microseconds=1)
    # Chance, not secrecy, is what is wanted here.
    moment = random.Random(seed).randrange(span)  # noqa: S311
    return Target(time=window.earliest_at + timedelta(microseconds=moment))


def _usable(base: BaseManifest, facts: RecoveryFacts) -> bool:
    known = {item.backup_id for item in facts.bases}
    return all(link in known and link not in facts.failed for link in (*base.chain, base.backup_id))


def _archived_end(facts: RecoveryFacts, line: Lineage, base: BaseManifest) -> int:
    return wal_after(base, line, facts.archive, parse_lsn(base.start_lsn), parse_lsn(base.stop_lsn)).end
