"""Turning on Dagster's schedules and sensors."""

from __future__ import annotations

import os

from tmi_ops.automation.switch import AUTOMATION_VARIABLE


def automate_what_starts() -> None:
    """Turn on schedules and sensors in the Dagster processes started from here, unless the variable is set."""
    os.environ.setdefault(AUTOMATION_VARIABLE, "on")
