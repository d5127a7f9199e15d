"""How a promise stands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum

# From here on a promise is at risk: late enough to keep quiet in daily work (a catch-up comes every third of the RPO),
# and early enough to act while a quarter of the time is left.
AT_RISK_FROM = 0.75


class Standing(StrEnum):
    """A verdict on an objective, the worst last."""

    MET = "met"
    UNKNOWN = "unknown"
    AT_RISK = "at risk"
    BREACHED = "breached"


def standing_of(value: timedelta, objective: timedelta) -> Standing:
    """By the value alone."""
    if value > objective:
        return Standing.BREACHED
    return Standing.AT_RISK if value >= AT_RISK_FROM * objective else Standing.MET


def worst_of(standings: Iterable[Standing]) -> Standing:
    """The worst; met where there are none."""
    order = list(Standing)
    return max(standings, key=order.index, default=Standing.MET)
