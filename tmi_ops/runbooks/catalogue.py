"""The runbooks by name, so that a journal finds the deeds to its steps."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from tmi_ops.errors import RecoveryError
from tmi_ops.runbooks.execution import Actions
from tmi_ops.runbooks.plan import Plan

# Each module has a constant ACTIONS with an action for each step that its plans may name.
RUNBOOKS: Mapping[str, str] = {
    "corruption": "tmi_ops.runbooks.corruption.actions",
    "everything": "tmi_ops.runbooks.everything.actions",
    "rows": "tmi_ops.runbooks.rows.actions",
}


def actions_for(plan: Plan) -> Actions:
    """The deeds of a plan's runbook.

    Raises:
        RecoveryError: this version has no such runbook, or the plan names a step that it lacks.
    """
    module = RUNBOOKS.get(plan.runbook)
    actions: Actions = importlib.import_module(module).ACTIONS if module else {}
    missing = [step.name for step in plan.steps if step.name not in actions]
    if missing:
        raise RecoveryError(
            f"This version of tmi_ops cannot carry out {plan.runbook}: it lacks {', '.join(missing)}.",
            hint="use the version that began the run",
        )
    return actions
