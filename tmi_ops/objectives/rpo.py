"""The recovery point objective: how much would be lost if the server were lost now. Facts in, status out; pure.

1. Only verified backups count: the value is the time since the newest moment that a verified backup, with the WAL that
   continues it, can be recovered to. What an unverified one would give is reported as well.
2. The status follows from the value and the objective (`standing.py`). No verified backup at all is a breach.
3. The cures follow from what lies between that moment and now, the cheapest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import Reach, RecoverabilityFacts
from tmi_ops.objectives.standing import Standing, standing_of
from tmi_ops.settings import Objectives
from tmi_ops.text import format_duration
from tmi_ops.wal.slot import LOST

# Smaller differences between clocks are ignored; the value is then at least zero.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)
# From here on, one dump a day may be enough.
DUMPS_ARE_ENOUGH_FROM = timedelta(hours=24)


@dataclass(frozen=True)
class RpoReading:
    """The RPO and its status.

    Args:
        value: the achieved RPO now; None: nothing is verified, or the clocks disagree.
        reach: the moment that it is counted from, and how it is recovered.
        unverified: what the value would be if the newest backup were verified; None: it is, or there is none.
        cures: the cheapest first; empty if nothing needs to be done.
    """

    standing: Standing
    reason: str
    objective: timedelta
    value: timedelta | None
    reach: Reach | None
    unverified: timedelta | None
    cures: tuple[Cure, ...]


def judge_rpo(facts: RecoverabilityFacts, objectives: Objectives) -> RpoReading:
    """Judge how much would be lost now."""
    objective = objectives.rpo
    unverified = _unverified(facts)
    value = _age(facts, facts.verified.at) if facts.verified else None

    def reading(standing: Standing, reason: str, *cures: Cure, known: bool = True) -> RpoReading:
        if facts.ambiguous is not None:  # a restore would need a choice of the line
            standing = Standing.AT_RISK if standing is Standing.MET else standing
            reason, cures = f"{reason} {facts.ambiguous}", (*cures, Cure(Action.NAME_LINE))
        return RpoReading(standing, reason, objective, value if known else None, facts.verified, unverified, cures)

    if facts.newest is None:
        return reading(Standing.BREACHED, _nothing(facts), *_begin(facts, objective))
    if facts.verified is None or value is None:
        ago = _ago(facts, facts.newest)
        what = f"No backup is verified yet; the newest, {facts.newest.backup_id}, would recover to {ago}."
        return reading(Standing.BREACHED, what, _verify(facts.newest), *_lag_cures(facts, objective, unverified))
    if facts.server_now - facts.verified.at < -CLOCKS_AGREE_WITHIN:
        ahead = format_duration((facts.verified.at - facts.server_now).total_seconds())
        what = f"The newest moment in the store is {ahead} in the future: clocks disagree, so the RPO is unknown."
        return reading(Standing.UNKNOWN, what, Cure(Action.SET_CLOCKS), known=False)
    standing = standing_of(value, objective)
    reason = f"{_reached(facts, facts.verified)} The objective is {format_duration(objective.total_seconds())}."
    if standing is Standing.MET and _is_stopped(facts):
        return reading(Standing.AT_RISK, f"{reason} {_why_behind(facts, facts.verified, unverified)}", *_onward(facts))
    if standing is Standing.MET:
        return reading(standing, reason)
    why = _why_behind(facts, facts.verified, unverified)
    return reading(standing, f"{reason} {why}".strip(), *_cures(facts, objective, unverified))


def _is_stopped(facts: RecoverabilityFacts) -> bool:
    """Whether the shadow has reached a point in the archive that it cannot replay beyond: the age will only grow."""
    return facts.verified is not None and facts.verified.shown_by == "shadow" and _leads_no_further(facts.verified)


def _leads_no_further(reach: Reach) -> bool:
    return reach.missing is not None or reach.broken is not None


def _onward(facts: RecoverabilityFacts) -> tuple[Cure, ...]:
    """The backup from which replay can continue."""
    if facts.server is None:
        return (Cure(Action.REACH_DATABASE, detail="which every backup needs"),)
    if facts.verified is not None and facts.verified.missing is not None:
        return (Cure(Action.BACK_UP_INCREMENTAL, detail="which starts after the gap"),)
    return (Cure(Action.BACK_UP_BASE, detail="which starts after that point"),)


def _age(facts: RecoverabilityFacts, moment: datetime) -> timedelta:
    return max(timedelta(0), facts.server_now - moment)


def _unverified(facts: RecoverabilityFacts) -> timedelta | None:
    newest = facts.newest
    if newest is None or newest.verified:
        return None
    return _age(facts, newest.at)


def _ago(facts: RecoverabilityFacts, reach: Reach) -> str:
    return f"{format_duration(_age(facts, reach.at).total_seconds())} ago"


def _reached(facts: RecoverabilityFacts, reach: Reach) -> str:
    ways = {
        "WAL": f"backup {reach.backup_id} plus WAL",
        "base backup": f"backup {reach.backup_id}, no WAL archived after it",
        "logical backup": f"backup {reach.backup_id}",
    }
    if reach.shown_by == "shadow" and facts.shadow is not None:
        ways["WAL"] = f"replayed by the shadow {facts.shadow.name}"
    state = "now" if _age(facts, reach.at) < timedelta(seconds=1) else _ago(facts, reach)
    return f"Latest verified recovery point: {state} ({ways[reach.means]})."


def _nothing(facts: RecoverabilityFacts) -> str:
    if facts.failed:
        return f"There is no backup that can be restored; {', '.join(facts.failed[:3])} failed verification."
    return "There is no backup that can be restored."


def _why_behind(facts: RecoverabilityFacts, reach: Reach, unverified: timedelta | None) -> str:
    """Why that moment is not now, in a sentence or two. Empty if the facts do not show it."""
    if reach.missing is not None:
        if reach.shown_by == "shadow" and facts.shadow is not None and facts.shadow.stopped is not None:
            return f"The shadow cannot continue: {facts.shadow.stopped}"
        return f"The WAL after it has a gap: {reach.missing} is missing from the archive."
    if reach.broken is not None:
        return f"No recovery can go further. {reach.broken}"
    if facts.newest is not None and unverified is not None and facts.newest.at > reach.at:
        return f"{facts.newest.backup_id} would recover to {_ago(facts, facts.newest)}, but is not verified."
    if facts.server is None:
        return "The database cannot be queried, so commits since then may be missing."
    if facts.server.slot is not None and facts.server.slot.status == LOST:
        return "The server has invalidated the replication slot."
    if facts.receiver is not None and facts.receiver.at_work:
        return "The receiver is running but does not keep up."
    if reach.means == "logical backup":
        return "" if facts.way is None else "No archived WAL goes further."
    if facts.receiver is not None:
        return (
            f"No receiver is running; the last one reported {format_duration(facts.receiver.age.total_seconds())} ago."
        )
    return "No later WAL is archived." if reach.means == "WAL" else "WAL is not archived."


def _verify(reach: Reach) -> Cure:
    if reach.means == "logical backup":
        return Cure(Action.VERIFY_BACKUP, reach.backup_id)
    return Cure(Action.RUN_DRILL, detail=f"which verifies {reach.backup_id}")


def _begin(facts: RecoverabilityFacts, objective: timedelta) -> tuple[Cure, ...]:
    """The cures if there is no backup yet."""
    first = Cure(Action.BACK_UP_LOGICAL) if objective >= DUMPS_ARE_ENOUGH_FROM else Cure(Action.BACK_UP_BASE)
    return (first,) if facts.server else (Cure(Action.REACH_DATABASE), first)


def _cures(facts: RecoverabilityFacts, objective: timedelta, unverified: timedelta | None) -> tuple[Cure, ...]:
    helps = unverified is not None and standing_of(unverified, objective) is Standing.MET
    proving = (_verify(facts.newest),) if helps and facts.newest else ()
    return (*proving, *_lag_cures(facts, objective, unverified))


def _lag_cures(facts: RecoverabilityFacts, objective: timedelta, unverified: timedelta | None) -> tuple[Cure, ...]:
    """The cures that make the newest moment newer. Empty if it is new enough and only lacks verification."""
    if unverified is not None and standing_of(unverified, objective) is Standing.MET:
        return ()
    if facts.server is None:
        return (Cure(Action.REACH_DATABASE, detail="which every backup needs"),)
    if facts.way is None:
        return _by_dumps(facts, objective)
    if _is_stopped(facts):
        return _onward(facts)
    if facts.newest is not None and facts.newest.missing is not None:
        return (Cure(Action.BACK_UP_INCREMENTAL, detail="which starts after the gap"), Cure(Action.RUN_DRILL))
    if facts.newest is not None and facts.newest.broken is not None:
        return (Cure(Action.BACK_UP_BASE, detail="which starts after that point"), Cure(Action.RUN_DRILL))
    if facts.server.slot is not None and facts.server.slot.status == LOST:
        return (
            Cure(Action.BACK_UP_INCREMENTAL, detail="which replaces the lost WAL"),
            Cure(Action.START_RECEIVER, detail="with --accept-gap, as the slot is lost"),
        )
    if facts.receiver is not None and facts.receiver.at_work:
        return (Cure(Action.START_RECEIVER, detail="again: it does not keep up"), Cure(Action.BACK_UP_INCREMENTAL))
    return (Cure(Action.CATCH_UP_WAL), Cure(Action.START_RECEIVER, detail="as a service"))


def _by_dumps(facts: RecoverabilityFacts, objective: timedelta) -> tuple[Cure, ...]:
    if objective < DUMPS_ARE_ENOUGH_FROM:
        wanted = format_duration(objective.total_seconds())
        detail = f"and archive WAL: dumps alone cannot meet {wanted}"
        return (Cure(Action.BACK_UP_BASE, detail=detail), Cure(Action.BACK_UP_LOGICAL))
    interval = _interval(facts)
    if interval is None or interval < objective:
        return (Cure(Action.BACK_UP_LOGICAL),)
    detail = f"of logical backups, now {format_duration(interval.total_seconds())}"
    return (Cure(Action.BACK_UP_LOGICAL), Cure(Action.SHORTEN_INTERVAL, detail=detail))


def _interval(facts: RecoverabilityFacts) -> timedelta | None:
    """The time between the last two verified logical backups."""
    verified = [backup.snapshot_at for backup in facts.logical if backup.outcome == "proven"]
    return verified[0] - verified[1] if len(verified) > 1 else None
