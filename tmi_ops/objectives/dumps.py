"""The logical backups of a database beside its environment's own. Facts in, judgement out; pure.

Its cluster's base backups and WAL carry its RPO, and their guards look after those. What it has of its own are dumps:
the only way to bring back one database of a cluster by itself, and the only proof that its rows can be read.

1. Only proven dumps count: the value is the age of the newest one.
2. One may be as old as its cadence and the work of a night allow (`Cadence.late_after`). It is at risk from then on,
   and breached when a second one is missing, too. Nothing proven at all is a breach.
3. Where the newest dump was found bad, the next ones may be: that is at risk, however young an older one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import LogicalBackup
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.timetable import Cadence
from tmi_ops.words import time_words


@dataclass(frozen=True)
class DumpReading:
    """The judgement.

    Args:
        value: how old the newest proven dump is; None: none is proven.
        objective: how old it may be.
        newest: the newest dump of all; None: there is none.
        cures: the cheapest first; empty where nothing need be done.
    """

    standing: Standing
    reason: str
    objective: timedelta
    value: timedelta | None
    newest: LogicalBackup | None
    cures: tuple[Cure, ...]


def judge_dumps(dumps: Sequence[LogicalBackup], cadence: Cadence, now: datetime) -> DumpReading:
    """Judge how fresh they are.

    Args:
        dumps: with their rows, newest first.
        cadence: how often one comes by itself.
        now: by the clock of the server that dated them.
    """
    newest = next(iter(dumps), None)
    proven = next((one for one in dumps if one.outcome == "proven"), None)
    value = max(timedelta(0), now - proven.snapshot_at) if proven else None

    def reading(standing: Standing, reason: str) -> DumpReading:
        cures = () if standing is Standing.MET else _cures(newest, cadence, now)
        return DumpReading(standing, reason, cadence.late_after, value, newest, cures)

    if newest is None:
        return reading(Standing.BREACHED, "There is no logical backup of this database.")
    if proven is None or value is None:
        what = f"No logical backup is proven; the newest, {newest.backup_id}, {_state(newest)}."
        return reading(Standing.BREACHED, what)
    reason = f"The newest proven logical backup, {proven.backup_id}, is {time_words(value.total_seconds())} old"
    allowed = f"{reason}; it may be {time_words(cadence.late_after.total_seconds())}."
    beside = "" if newest is proven else f" A newer one, {newest.backup_id}, {_state(newest)}."
    if value > cadence.late_after + cadence.every:
        return reading(Standing.BREACHED, f"{allowed}{beside}")
    if value > cadence.late_after or newest.outcome == "failed":
        return reading(Standing.AT_RISK, f"{allowed}{beside}")
    return reading(Standing.MET, f"{reason}.")


def _state(dump: LogicalBackup) -> str:
    return "was found bad by its proof" if dump.outcome == "failed" else "is not proven"


def _cures(newest: LogicalBackup | None, cadence: Cadence, now: datetime) -> tuple[Cure, ...]:
    """A proof where the newest only wants one; a new dump, which its job proves in the same run, else."""
    another = Cure(Action.BACK_UP_LOGICAL)
    young = newest is not None and now - newest.snapshot_at <= cadence.late_after
    if newest is not None and young and newest.outcome == "not proven":
        return (Cure(Action.PROVE_BACKUP, newest.backup_id), another)
    return (another,)
