"""How long each phase of a recovery takes, from what drills measured. Pure.

A phase that moves bytes is forecast from the newest drill that moved enough of them to measure a speed. If none did, it
takes as long as in the newest drill, plus the bytes beyond that drill's at an assumed, cautious speed; without any
drill everything is assumed. Phases that move no bytes take as long as last time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tmi_ops.objectives.facts import BaseWay, DrillMeasure

Basis = Literal["measured", "measured in part", "assumed"]
_MB = 1_000_000
# Below this a phase's time is mostly start-up, which measures no speed.
ENOUGH = 64 * _MB


@dataclass(frozen=True)
class Assumed:
    """What is assumed before anything was measured: seconds, and bytes a second if it moves bytes."""

    amount: Literal["fetched", "cluster", "replayed", "none"]
    seconds: float
    speed: float = 1.0


# Cautious figures for two cores and a store some milliseconds away; `fetched` counts stored, compressed bytes.
ASSUMED: dict[str, Assumed] = {
    "plan": Assumed("none", 5),
    "prepare": Assumed("none", 2),
    "fetch": Assumed("fetched", 1, 50 * _MB),
    "extract": Assumed("fetched", 1, 40 * _MB),
    "combine": Assumed("cluster", 1, 150 * _MB),
    "check files": Assumed("cluster", 1, 300 * _MB),
    "replay": Assumed("replayed", 2, 20 * _MB),
    "promote": Assumed("none", 5),
    "sync": Assumed("cluster", 1, 200 * _MB),
    "start": Assumed("none", 5),
    "verify": Assumed("cluster", 5, 50 * _MB),
}


@dataclass(frozen=True)
class PhaseForecast:
    """One phase: seconds for `amount` bytes (0 if it moves none), and whether that was measured."""

    phase: str
    seconds: float
    amount: int
    basis: Basis


def forecast_phases(way: BaseWay, drills: Sequence[DrillMeasure]) -> tuple[PhaseForecast, ...]:
    """The phases of a recovery.

    Args:
        drills: those whose recovery succeeded, newest first.
    """
    wanted = [phase for phase in ASSUMED if phase != "combine" or way.chain_length > 1]
    return tuple(_forecast(phase, _amount(ASSUMED[phase], way), drills) for phase in wanted)


def _forecast(phase: str, amount: int, drills: Sequence[DrillMeasure]) -> PhaseForecast:
    assumed = ASSUMED[phase]
    measured = [
        (_measured_amount(assumed, drill), drill.phases[phase]) for drill in drills if drill.phases.get(phase, 0) > 0
    ]
    if not measured:
        return PhaseForecast(phase, assumed.seconds + amount / assumed.speed, amount, "assumed")
    last_amount, last_seconds = measured[0]
    if assumed.amount == "none":
        return PhaseForecast(phase, last_seconds, 0, "measured")
    telling = next(((moved, seconds) for moved, seconds in measured if moved >= ENOUGH), None)
    if telling is not None:
        moved, seconds = telling
        return PhaseForecast(phase, seconds * amount / moved, amount, "measured")
    if amount <= last_amount:
        return PhaseForecast(phase, last_seconds, amount, "measured")
    beyond = (amount - last_amount) / assumed.speed
    # Too few bytes for the difference to matter.
    basis: Basis = "measured" if amount <= ENOUGH else "measured in part"
    return PhaseForecast(phase, last_seconds + beyond, amount, basis)


def _amount(assumed: Assumed, way: BaseWay) -> int:
    return {"fetched": way.fetched, "cluster": way.cluster_size, "replayed": way.replayed, "none": 0}[assumed.amount]


def _measured_amount(assumed: Assumed, drill: DrillMeasure) -> int:
    return {"fetched": drill.fetched, "cluster": drill.restored, "replayed": drill.replayed, "none": 0}[assumed.amount]
