"""The next time of cron expressions of five fields, in a time zone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def next_time(crons: Sequence[str], after: datetime, timezone: str) -> datetime | None:
    """The first time after `after` (aware) of any of the expressions; None if there is none for decades.

    Where the clocks change, as Debian's cron does: what falls into the hour that is skipped runs after it, and what
    falls into the hour that comes twice runs once.

    Raises:
        ValueError: an expression is malformed.
    """
    local = after.astimezone(ZoneInfo(timezone))
    try:
        found = [next(CronSim(cron, local), None) for cron in crons]
    except CronSimError as error:
        raise ValueError(f"cron expression {', '.join(map(repr, crons))}: {error}") from error
    return min((moment for moment in found if moment is not None), default=None)
