"""The status of an objective: met, at risk, breached or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum

# An objective is at risk from here: above what daily work reaches (WAL is caught up every third of the RPO), and while
# a quarter of the time is left to act.
AT_RISK_FROM = 0.75


class Standing(StrEnum):
    """The status of an objective, the worst last."""

    MET = "met"
    UNKNOWN = "unknown"
    AT_RISK = "at risk"
    BREACHED = "breached"


def standing_of(value: timedelta, objective: timedelta) -> Standing:
    """The status that the value alone gives."""
    if value > objective:
        return Standing.BREACHED
    return Standing.AT_RISK if value >= AT_RISK_FROM * objective else Standing.MET


def worst_of(standings: Iterable[Standing]) -> Standing:
    """The worst status; met if there are none."""
    order = list(Standing)
    return max(standings, key=order.index, default=Standing.MET)
