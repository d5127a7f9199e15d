"""The recovery time objective: how long a recovery to the newest moment would take now. Facts in, forecast out; pure.

1. The forecast is for base backup and WAL if there is a base backup, else for the newest logical backup. If there is
   also a shadow whose promotion was measured, it is for a promotion.
2. It adds up the phases of a recovery, such as fetch, extract and replay, from the speeds of drills and today's sizes.
3. It must be based on a drill. Without a successful one, the status is unknown if the forecast meets the objective, and
   at risk if not. If the last drill failed or is older than `DRILL_STALE_AFTER`, the status is at risk or worse.
4. The cure is the cheapest backup after which the objective would be met; if none is enough, the reason says so.

A phase that moves bytes is forecast from the newest drill that moved enough of them to measure a speed. If none did, it
takes as long as in the newest drill, plus the time for additional bytes at an assumed, cautious speed. Without any
drill everything is assumed. Phases that move no bytes take as long as last time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from tmi_ops.objectives.by_shadow import promotion_of
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import BaseWay, DrillMeasure, LogicalBackup, RecoverabilityFacts
from tmi_ops.objectives.standing import Standing, standing_of, worst_of
from tmi_ops.postgres.versions import INCREMENTAL_BACKUP
from tmi_ops.settings import Objectives
from tmi_ops.text import format_duration

Basis = Literal["measured", "measured in part", "assumed"]
_MB = 1_000_000
# If fewer bytes were moved, a phase's time is mostly start-up and says nothing about speed.
ENOUGH = 64 * _MB


@dataclass(frozen=True)
class Assumed:
    """What is assumed of a phase until it was measured: seconds, and bytes a second if it moves bytes."""

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
    # With so few bytes the assumed speed hardly matters.
    basis: Basis = "measured" if amount <= ENOUGH else "measured in part"
    return PhaseForecast(phase, last_seconds + beyond, amount, basis)


def _amount(assumed: Assumed, way: BaseWay) -> int:
    return {"fetched": way.fetched, "cluster": way.cluster_size, "replayed": way.replayed, "none": 0}[assumed.amount]


def _measured_amount(assumed: Assumed, drill: DrillMeasure) -> int:
    return {"fetched": drill.fetched, "cluster": drill.restored, "replayed": drill.replayed, "none": 0}[assumed.amount]


# Drills are weekly; one may be a day late.
DRILL_STALE_AFTER = timedelta(days=8)
# How much an incremental backup adds to the bytes to fetch, as a share of its chain so far.
INCREMENT_SHARE = 0.1
_DUMP_SPEED = 20_000_000  # bytes of database a second; cautious
_BECAUSE_OF_LAST_DRILL = "the last drill failed"


@dataclass(frozen=True)
class RtoForecast:
    """The forecast and its status.

    Args:
        value: the forecast; None: there is nothing to restore from.
        phases: its parts; `basis`: whether drills measured it.
        last_drill: the newest drill; the time it measured is `last_drill.rto`.
        drill_due: why a drill should be run now; None: none is due.
        cures: the cheapest first; empty if nothing needs to be done.
    """

    standing: Standing
    reason: str
    objective: timedelta
    value: timedelta | None
    phases: tuple[PhaseForecast, ...]
    basis: Basis
    last_drill: DrillMeasure | None
    drill_due: str | None
    cures: tuple[Cure, ...]


def forecast_rto(facts: RecoverabilityFacts, objectives: Objectives) -> RtoForecast:
    """Forecast how long a recovery would take now, and judge it."""
    objective = objectives.rto
    if facts.way is not None:
        return _by_files(facts, facts.way, objective)
    backup = next((one for one in facts.logical if one.outcome != "failed"), None)
    if backup is not None:
        return _by_dump(facts, backup, objective)
    first = Cure(Action.BACK_UP_BASE)
    cures = (first,) if facts.server else (Cure(Action.REACH_DATABASE), first)
    reason = "There is nothing to restore from."
    return RtoForecast(Standing.BREACHED, reason, objective, None, (), "assumed", _last(facts), None, cures)


def drill_due(facts: RecoverabilityFacts) -> str | None:
    """Why a drill should be run now; None: none is due, or there is no base backup to drill."""
    if facts.way is None:
        return None
    last = _last(facts)
    if last is None:
        return "no drill has run yet"
    if not last.sound:
        return f"{_BECAUSE_OF_LAST_DRILL}: {' '.join(last.reasons)}".rstrip()
    age = facts.read_at - last.at
    return f"the last drill was {age.days} days ago" if age > DRILL_STALE_AFTER else None


def _by_files(facts: RecoverabilityFacts, way: BaseWay, objective: timedelta) -> RtoForecast:
    recovered = [drill for drill in facts.drills if drill.sound and drill.restored]
    phases = forecast_phases(way, recovered)
    due = drill_due(facts)
    shadow = promotion_of(facts)
    if shadow is not None and facts.shadow is not None and facts.shadow.promotion is not None:
        return _by_shadow(facts, shadow, _total(phases), due, objective)
    value = _total(phases)
    standing = standing_of(value, objective)
    said = f"A recovery would take {_format(value)}; the objective is {_format(objective)}."
    cures: tuple[Cure, ...] = ()
    if not recovered:
        standing = Standing.UNKNOWN if standing is Standing.MET else Standing.AT_RISK
        said = f"No drill has measured it; at assumed speeds, {said[0].lower()}{said[1:]}"
    elif standing is not Standing.MET:
        cures, help_text = _quicker(facts, way, recovered, objective)
        said = f"{said} {_slowest(phases)} {help_text}".rstrip()
    if due is not None:
        if facts.drills:
            standing = worst_of([standing, Standing.AT_RISK])
            said = f"{said} {due[0].upper()}{due[1:].rstrip('.')}."
        cures = (*cures, Cure(Action.RUN_DRILL))
    return RtoForecast(standing, said, objective, value, phases, _basis(phases), _last(facts), due, cures)


def _by_shadow(
    facts: RecoverabilityFacts, value: timedelta, by_files: timedelta, due: str | None, objective: timedelta
) -> RtoForecast:
    """The forecast of a promotion. The reason also has the forecast without the shadow, which may be lost as well."""
    standing = standing_of(value, objective)
    said = (
        f"Promoting the shadow would take {_format(value)}; the objective is {_format(objective)}. Without the shadow, "
        f"a recovery would take {_format(by_files)}."
    )
    phase = PhaseForecast("promote the shadow", value.total_seconds(), 0, "measured")
    cures = (Cure(Action.RUN_DRILL),) if due is not None else ()
    if due is not None and facts.drills:
        standing = worst_of([standing, Standing.AT_RISK])
        said = f"{said} {due[0].upper()}{due[1:].rstrip('.')}."
    return RtoForecast(standing, said, objective, value, (phase,), "measured", _last(facts), due, cures)


def _by_dump(facts: RecoverabilityFacts, backup: LogicalBackup, objective: timedelta) -> RtoForecast:
    """The forecast from the last verification, which restored a dump and compared it."""
    measured = next((one for one in facts.logical if one.verify is not None and one.outcome == "proven"), None)
    if measured is None or measured.verify is None:
        seconds, basis = backup.database_size / _DUMP_SPEED, "assumed"
    else:
        seconds = measured.verify.total_seconds() * backup.database_size / max(1, measured.database_size)
        basis = "measured"
    phase = PhaseForecast("restore and compare", seconds, backup.database_size, "measured" if measured else "assumed")
    value = timedelta(seconds=seconds)
    standing = standing_of(value, objective)
    said = f"A restore of {backup.backup_id} would take {_format(value)}; the objective is {_format(objective)}."
    cures: tuple[Cure, ...] = ()
    if basis == "assumed":
        standing = Standing.UNKNOWN if standing is Standing.MET else Standing.AT_RISK
        said = f"No verification has measured it; at assumed speeds, {said[0].lower()}{said[1:]}"
        cures = (Cure(Action.VERIFY_BACKUP, backup.backup_id),)
    elif standing is not Standing.MET:
        said = f"{said} Loading a dump is slow; a base backup restores faster."
        cures = (Cure(Action.BACK_UP_BASE),)
    return RtoForecast(standing, said, objective, value, (phase,), phase.basis, _last(facts), None, cures)


def _quicker(
    facts: RecoverabilityFacts, way: BaseWay, drills: list[DrillMeasure], objective: timedelta
) -> tuple[tuple[Cure, ...], str]:
    """The cheapest backup after which the objective would be met, and a sentence if none is enough."""
    if facts.server is None:
        return (Cure(Action.REACH_DATABASE),), ""
    full = replace(way, replayed=0, chain_length=1, fetched=way.full)
    choices = [(Action.BACK_UP_BASE, full)]
    if _major(facts.server.version) >= INCREMENTAL_BACKUP:
        grown = int(way.fetched * (1 + INCREMENT_SHARE))
        choices.insert(
            0,
            (Action.BACK_UP_INCREMENTAL, replace(way, replayed=0, chain_length=way.chain_length + 1, fetched=grown)),
        )
    for action, after in choices:
        then = _total(forecast_phases(after, drills))
        if standing_of(then, objective) is Standing.MET:
            return (Cure(action, detail=f"after which a recovery would take {_format(then)}"),), ""
    least = _total(forecast_phases(full, drills))
    if least < 0.9 * _total(forecast_phases(way, drills)):
        return (Cure(Action.BACK_UP_BASE),), f"Even with a new full base backup it would take {_format(least)}."
    return (), (
        f"A new base backup would not help ({_format(least)}): restoring the files takes too long. A faster disk or "
        "network, or a standby, would help."
    )


def _slowest(phases: tuple[PhaseForecast, ...]) -> str:
    slowest = max(phases, key=lambda phase: phase.seconds)
    return f"The longest phase is {slowest.phase} ({_format(timedelta(seconds=slowest.seconds))})."


def _basis(phases: tuple[PhaseForecast, ...]) -> Basis:
    bases = {phase.basis for phase in phases if ASSUMED[phase.phase].amount != "none"}
    if bases == {"assumed"}:
        return "assumed"
    return "measured" if bases == {"measured"} else "measured in part"


def _total(phases: tuple[PhaseForecast, ...]) -> timedelta:
    return timedelta(seconds=sum(phase.seconds for phase in phases))


def _last(facts: RecoverabilityFacts) -> DrillMeasure | None:
    return facts.drills[0] if facts.drills else None


def _major(version: str) -> int:
    digits = version.split(".")[0].split()[0]
    return int(digits) if digits.isdigit() else 0


def _format(duration: timedelta) -> str:
    return format_duration(duration.total_seconds())
