"""Refuses a second run while an unfinished one has changed the system's state.

A run that has let the application in again does not count: its result is in service.
"""

from __future__ import annotations

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.progress import Report
from tmi_ops.runbooks.execution import how_to_continue, is_final, standing
from tmi_ops.runbooks.journal import Journal, shown
from tmi_ops.runbooks.logbook import list_runs
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore


def refuse_unfinished(settings: Settings, store: ObjectStore, runbooks: tuple[str, ...], report: Report) -> None:
    """Raises:
    RecoveryError: a run of one of these runbooks has interrupted the application, and neither let it in again nor was
        undone.
    """
    for run in list_runs(settings, store, report):
        if run.plan.runbook in runbooks and run.state in ("stopped", "under way") and _is_in_the_way(run):
            raise RecoveryError(
                f"An earlier run is not finished: {run.run_id}, {_how_far(run)}.",
                detail=standing(run),
                hint=how_to_continue(run),
                code=Code.RUN_UNFINISHED,
            )


def _how_far(run: Journal) -> str:
    last = run.attempts[-1]
    how = {"failed": "failed", "running": "has started but not ended"}.get(last.outcome, f"is {shown(last.outcome)}")
    return f"{len(run.done)} of {len(run.plan.steps)} steps done, {last.step} {how}"


def _is_in_the_way(run: Journal) -> bool:
    touched = any(run.plan.step(attempt.step).effect != "beside" for attempt in run.attempts)
    return touched and not any(is_final(run.plan.step(step)) for step in run.done)
