from __future__ import annotations

import os

import pytest

from tmi_ops.automation.switch import AUTOMATION_VARIABLE, read_automation
from tmi_ops.cli.automation import automate_what_starts


@pytest.mark.parametrize(("said", "running"), [(None, True), ("off", False)])
def test_the_demo_lets_schedules_and_sensors_run_unless_the_caller_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, said: str | None, running: bool
) -> None:
    monkeypatch.setenv(AUTOMATION_VARIABLE, said or "")
    if said is None:
        monkeypatch.delenv(AUTOMATION_VARIABLE)
    automate_what_starts()
    assert read_automation("development", os.environ).running is running
