"""The logical backups of a database that shares its environment's cluster. Facts in, status out; pure.

The base backups and WAL of the cluster cover its RPO; the environment's guards watch those. The dumps belong to the
database itself: they are the only way to restore one database of a cluster alone, and the only evidence that its rows
can be read.

1. Only verified dumps count: the value is the age of the newest one.
2. It may be as old as its cadence and the time for a run allow (`Cadence.late_after`). After that the status is at
   risk, and breached once a second dump is missing. No verified dump at all is a breach.
3. If verification of the newest dump failed, the next ones may fail too: at risk, however new an older one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import LogicalBackup
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.timetable import Cadence
from tmi_ops.text import format_duration


@dataclass(frozen=True)
class DumpReading:
    """The status of the dumps.

    Args:
        value: the age of the newest verified dump; None: none is verified.
        objective: how old it may be.
        newest: the newest dump of all; None: there is none.
        cures: the cheapest first; empty if nothing needs to be done.
    """

    standing: Standing
    reason: str
    objective: timedelta
    value: timedelta | None
    newest: LogicalBackup | None
    cures: tuple[Cure, ...]


def judge_dumps(dumps: Sequence[LogicalBackup], cadence: Cadence, now: datetime) -> DumpReading:
    """Judge how old the newest verified dump is.

    Args:
        dumps: dumps with rows, newest first.
        cadence: how often one is scheduled.
        now: the time by the server's clock, which also dated the dumps.
    """
    newest = next(iter(dumps), None)
    verified = next((one for one in dumps if one.outcome == "proven"), None)
    value = max(timedelta(0), now - verified.snapshot_at) if verified else None

    def reading(standing: Standing, reason: str) -> DumpReading:
        cures = () if standing is Standing.MET else _cures(newest, cadence, now)
        return DumpReading(standing, reason, cadence.late_after, value, newest, cures)

    if newest is None:
        return reading(Standing.BREACHED, "There is no logical backup of this database.")
    if verified is None or value is None:
        what = f"No logical backup is verified; the newest, {newest.backup_id}, {_state(newest)}."
        return reading(Standing.BREACHED, what)
    reason = (
        f"The newest verified logical backup, {verified.backup_id}, is {format_duration(value.total_seconds())} old"
    )
    allowed = f"{reason}; the limit is {format_duration(cadence.late_after.total_seconds())}."
    beside = "" if newest is verified else f" A newer one, {newest.backup_id}, {_state(newest)}."
    if value > cadence.late_after + cadence.every:
        return reading(Standing.BREACHED, f"{allowed}{beside}")
    if value > cadence.late_after or newest.outcome == "failed":
        return reading(Standing.AT_RISK, f"{allowed}{beside}")
    return reading(Standing.MET, f"{reason}.")


def _state(dump: LogicalBackup) -> str:
    return "failed verification" if dump.outcome == "failed" else "is not verified"


def _cures(newest: LogicalBackup | None, cadence: Cadence, now: datetime) -> tuple[Cure, ...]:
    """Verify the newest dump if it only lacks that; else take a new one, which its job verifies in the same run."""
    another = Cure(Action.BACK_UP_LOGICAL)
    young = newest is not None and now - newest.snapshot_at <= cadence.late_after
    if newest is not None and young and newest.outcome == "not proven":
        return (Cure(Action.VERIFY_BACKUP, newest.backup_id), another)
    return (another,)
