"""The runbooks by name, so that a journal finds the actions for its steps."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from tmi_ops.error_codes import Code
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
    """The actions of a plan's runbook.

    Raises:
        RecoveryError: this version has no such runbook or lacks a step of the plan.
    """
    module = RUNBOOKS.get(plan.runbook)
    actions: Actions = importlib.import_module(module).ACTIONS if module else {}
    missing = [step.name for step in plan.steps if step.name not in actions]
    if missing:
        raise RecoveryError(
            f"This version of tmi_ops cannot run {plan.runbook}: it lacks the steps {', '.join(missing)}.",
            hint="use the version that started the run",
            code=Code.JOURNAL_UNREADABLE,
        )
    return actions
