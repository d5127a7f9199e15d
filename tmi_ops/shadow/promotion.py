"""Promotes the shadow's server once all archived WAL is replayed, or the replay does not get any further."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.shadow.replay_state import Observed, has_all
from tmi_ops.shadow.report import OF_THE_WAL, Trouble
from tmi_ops.shadow.server import ShadowServer

# How long the replay may make no progress before the shadow is promoted where it is.
NO_FURTHER_S = 60.0


@dataclass(frozen=True)
class Promoted:
    """A promoted shadow. `why`: what kept it from reaching the end of the archive; empty if it did."""

    lsn: int
    timeline: int
    why: str
    waited_s: float
    promoted_s: float


class Promotion:
    """A requested promotion.

    Args:
        archive_end: returns the LSN after the last archived byte along the shadow's line.

    Raises:
        As `archive_end`.
    """

    def __init__(self, archive_end: Callable[[], int]) -> None:
        self._archive_end = archive_end
        self._asked_at = time.monotonic()
        self._end = archive_end()

    def why_now(self, seen: Observed, stopped: Trouble | None) -> str | None:
        """Whether to promote the server now.

        Returns:
            Why the replay will not reach the end of the archive; empty if it has. None: wait for more replay.

        Raises:
            As `archive_end`.
        """
        whole = has_all(seen) and seen.handed_to >= self._end
        if whole and time.monotonic() - self._asked_at < NO_FURTHER_S:
            self._end = self._archive_end()  # the receiver may have archived more
            if self._end > seen.handed_to:
                return None
        if whole:
            return ""
        comes_no_further = seen.still_s > NO_FURTHER_S or (stopped is not None and stopped.kind in OF_THE_WAL)
        if not comes_no_further:
            return None
        return stopped.what if stopped else f"The replay did not get past {format_lsn(seen.replayed)}."

    def promote(self, server: ShadowServer, replayed: int, why: str) -> Promoted:
        """Promote the server to a new timeline.

        Raises:
            OpsError: the promotion failed.
        """
        timeline, took = server.promote()
        return Promoted(replayed, timeline, why, time.monotonic() - self._asked_at, took)
