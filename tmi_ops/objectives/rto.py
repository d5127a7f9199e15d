"""The recovery time objective: how long a recovery to the newest moment would take now. Facts in, forecast out; pure.

1. The way is the one that leads nearest to now: base backup and WAL where there is a base, else the newest logical one.
2. Its time is fetch, extract, combine, replay and proof, from drills' speeds and today's sizes (`speed.py`).
3. A forecast that no drill stands behind is no promise: with none at all the standing is unknown; when the last one
   failed or is older than `DRILL_STALE_AFTER`, it is at risk.
4. The cure is the cheapest backup after which the forecast would be met; where none would do, the reason says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from tmi_ops.objectives.by_shadow import promotion_of
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import BaseWay, DrillMeasure, LogicalBackup, RecoverabilityFacts
from tmi_ops.objectives.speed import ASSUMED, Basis, PhaseForecast, forecast_phases
from tmi_ops.objectives.standing import Standing, standing_of, worst_of
from tmi_ops.postgres.versions import INCREMENTAL_BACKUP
from tmi_ops.settings import Objectives
from tmi_ops.words import time_words

# Drills come weekly; a day's grace for one that is late.
DRILL_STALE_AFTER = timedelta(days=8)
# What an incremental backup adds to the bytes that are fetched, of those of its chain so far.
INCREMENT_SHARE = 0.1
_DUMP_SPEED = 20_000_000  # bytes of database a second; cautious
_BECAUSE_OF_LAST_DRILL = "the last drill failed"


@dataclass(frozen=True)
class RtoForecast:
    """The judgement.

    Args:
        value: the forecast; None: there is nothing to restore from.
        phases: what it is made of; `basis`: whether drills measured it.
        last_drill: the newest one; its own time, measured, is `last_drill.rto`.
        drill_due: why a drill should be run now; None: none is due.
        cures: the cheapest first; empty where nothing need be done.
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
        return "there was no drill yet"
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
    said = f"A recovery would take {_words(value)}; the objective is {_words(objective)}."
    cures: tuple[Cure, ...] = ()
    if not recovered:
        standing = Standing.UNKNOWN if standing is Standing.MET else Standing.AT_RISK
        said = f"No drill has measured it; at assumed speeds {said[0].lower()}{said[1:]}"
    elif standing is not Standing.MET:
        cures, help_words = _quicker(facts, way, recovered, objective)
        said = f"{said} {_slowest(phases)} {help_words}".rstrip()
    if due is not None:
        if facts.drills:
            standing = worst_of([standing, Standing.AT_RISK])
            said = f"{said} {due[0].upper()}{due[1:].rstrip('.')}."
        cures = (*cures, Cure(Action.RUN_DRILL))
    return RtoForecast(standing, said, objective, value, phases, _basis(phases), _last(facts), due, cures)


def _by_shadow(
    facts: RecoverabilityFacts, value: timedelta, by_files: timedelta, due: str | None, objective: timedelta
) -> RtoForecast:
    """Promoting it is the recovery. What it would be without is told, too: a shadow may be lost with the server."""
    standing = standing_of(value, objective)
    said = (
        f"Promoting the shadow would take {_words(value)}; the objective is {_words(objective)}. Without it, a "
        f"recovery from the files would take {_words(by_files)}."
    )
    phase = PhaseForecast("promote the shadow", value.total_seconds(), 0, "measured")
    cures = (Cure(Action.RUN_DRILL),) if due is not None else ()
    if due is not None and facts.drills:
        standing = worst_of([standing, Standing.AT_RISK])
        said = f"{said} {due[0].upper()}{due[1:].rstrip('.')}."
    return RtoForecast(standing, said, objective, value, (phase,), "measured", _last(facts), due, cures)


def _by_dump(facts: RecoverabilityFacts, backup: LogicalBackup, objective: timedelta) -> RtoForecast:
    """A proof restores a dump and compares it: it has measured what a recovery takes."""
    measured = next((one for one in facts.logical if one.verify is not None and one.outcome == "proven"), None)
    if measured is None or measured.verify is None:
        seconds, basis = backup.database_size / _DUMP_SPEED, "assumed"
    else:
        seconds = measured.verify.total_seconds() * backup.database_size / max(1, measured.database_size)
        basis = "measured"
    phase = PhaseForecast("restore and compare", seconds, backup.database_size, "measured" if measured else "assumed")
    value = timedelta(seconds=seconds)
    standing = standing_of(value, objective)
    said = f"A restore of {backup.backup_id} would take {_words(value)}; the objective is {_words(objective)}."
    cures: tuple[Cure, ...] = ()
    if basis == "assumed":
        standing = Standing.UNKNOWN if standing is Standing.MET else Standing.AT_RISK
        said = f"No proof has measured it; at assumed speeds {said[0].lower()}{said[1:]}"
        cures = (Cure(Action.PROVE_BACKUP, backup.backup_id),)
    elif standing is not Standing.MET:
        said = f"{said} Loading a dump is slow; files of a base backup come back quicker."
        cures = (Cure(Action.BACK_UP_BASE),)
    return RtoForecast(standing, said, objective, value, (phase,), phase.basis, _last(facts), None, cures)


def _quicker(
    facts: RecoverabilityFacts, way: BaseWay, drills: list[DrillMeasure], objective: timedelta
) -> tuple[tuple[Cure, ...], str]:
    """The cheapest backup after which the forecast would be met, and a sentence where none would do."""
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
            return (Cure(action, detail=f"after which it would take {_words(then)}"),), ""
    least = _total(forecast_phases(full, drills))
    if least < 0.9 * _total(forecast_phases(way, drills)):
        return (Cure(Action.BACK_UP_BASE),), f"Even with a new full base backup it would take {_words(least)}."
    return (), (
        f"A new base backup would not help ({_words(least)}): what takes long is bringing back the files. "
        "A faster disk or network, or a standby, would."
    )


def _slowest(phases: tuple[PhaseForecast, ...]) -> str:
    slowest = max(phases, key=lambda phase: phase.seconds)
    return f"Most of it is {slowest.phase} ({_words(timedelta(seconds=slowest.seconds))})."


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


def _words(duration: timedelta) -> str:
    return time_words(duration.total_seconds())
