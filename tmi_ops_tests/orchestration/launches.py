"""Launches of recoveries from Dagster's page: what they show, and the codes for them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from dagster import ExecuteInProcessResult

from tmi_ops.runbooks.codes import looked_at, new_code
from tmi_ops.settings import Settings


def shown_by(result: ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the run's one step."""
    assert result.success
    return {
        name: entry.value
        for event in result.all_events
        if event.is_successful_output
        for name, entry in event.step_output_data.metadata.items()
    }


def code_for(settings: Settings, job: str, looked: ExecuteInProcessResult) -> str:
    """What the command prints for the plan that a launch without a yes has named."""
    (name,) = re.findall(r"recover code \w+ ([\w-]+)`", str(shown_by(looked)["to confirm"]))
    now = datetime.now(UTC)
    return new_code(settings.home, looked_at(settings.home, settings.environment, job, name, now), now)
