"""Promotes the shadow's server: once all that is archived is replayed, or nothing more comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.shadow.judging import Observed, has_all
from tmi_ops.shadow.report import OF_THE_WAL, Trouble
from tmi_ops.shadow.server import ShadowServer

# A shadow that is to be handed over, and does not come further for so long, is handed over as far as it came.
NO_FURTHER_S = 60.0


@dataclass(frozen=True)
class Promoted:
    """A shadow that came up. `why`: what kept it from the archive's end; empty: nothing."""

    lsn: int
    timeline: int
    why: str
    waited_s: float
    promoted_s: float


class Promotion:
    """A promotion that somebody asked for, from then on.

    Args:
        archive_end: tells the LSN behind the last byte that is archived along the shadow's line.

    Raises:
        As `archive_end`.
    """

    def __init__(self, archive_end: Callable[[], int]) -> None:
        self._archive_end = archive_end
        self._asked_at = time.monotonic()
        self._end = archive_end()

    def why_now(self, seen: Observed, stopped: Trouble | None) -> str | None:
        """What keeps the server from the archive's end, where it is to be promoted now; empty: nothing does.

        Returns:
            None: what is archived is to be replayed first.

        Raises:
            As `archive_end`.
        """
        whole = has_all(seen) and seen.handed_to >= self._end
        if whole and time.monotonic() - self._asked_at < NO_FURTHER_S:
            self._end = self._archive_end()  # its receiver may have put more there since
            if self._end > seen.handed_to:
                return None
        if whole:
            return ""
        comes_no_further = seen.still_s > NO_FURTHER_S or (stopped is not None and stopped.kind in OF_THE_WAL)
        if not comes_no_further:
            return None
        return stopped.what if stopped else f"The replay did not come further than {format_lsn(seen.replayed)}."

    def promote(self, server: ShadowServer, replayed: int, why: str) -> Promoted:
        """Promote it to a timeline of its own.

        Raises:
            OpsError: the server did not come up.
        """
        timeline, took = server.promote()
        return Promoted(replayed, timeline, why, time.monotonic() - self._asked_at, took)
