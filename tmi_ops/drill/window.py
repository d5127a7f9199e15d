"""The recovery window: from the oldest base backup to the newest recovery point. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.newest import newest_moment
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, why_unusable
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.store.manifest import BaseManifest


@dataclass(frozen=True)
class RecoveryWindow:
    """The base backups, newest first, and the newest recovery point, by time and by LSN."""

    bases: tuple[BaseManifest, ...]
    newest_at: datetime
    newest_lsn: int

    @property
    def earliest_at(self) -> datetime:
        return self.bases[-1].consistent_at


def recovery_window(facts: RecoveryFacts, witnesses: Sequence[KnownWalEnd]) -> RecoveryWindow:
    """The window of the newest timeline.

    Args:
        facts: including the clock of that timeline.
        witnesses: readings of how far the server's WAL went, and when.

    Raises:
        RecoveryError: no base backup of that timeline can be used.
    """
    line = choose_line(facts, None)
    bases = tuple(base for base in bases_on(facts, line) if why_unusable(facts, base) is None)
    if not bases:
        raise RecoveryError(
            "No base backup of the newest timeline can be used, so there is nothing to drill.",
            hint="take one: `tmi-ops backup base`",
            code=Code.NO_BASE_BACKUP,
        )
    newest = newest_moment(facts, line, bases[0], witnesses)
    return RecoveryWindow(bases, newest.at, newest.wal.end)


def random_target(window: RecoveryWindow, newest_commit: datetime | None, seed: int) -> Target:
    """A random time inside the window, reproducible by `seed`; the end of the WAL when the window is empty.

    Args:
        newest_commit: upper limit, because PostgreSQL recovers to a time only if a commit at or after it exists.
    """
    if newest_commit is None or newest_commit <= window.earliest_at:
        return Target()
    span = (newest_commit - window.earliest_at) // timedelta(microseconds=1)
    moment = random.Random(seed).randrange(span)  # noqa: S311
    return Target(time=window.earliest_at + timedelta(microseconds=moment))
