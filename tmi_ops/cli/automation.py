"""Switching on what runs by itself."""

from __future__ import annotations

import os

from tmi_ops.automation.switch import AUTOMATION_VARIABLE


def automate_what_starts() -> None:
    """Let Dagster's schedules and sensors run in all that this process starts, unless the caller has said otherwise."""
    os.environ.setdefault(AUTOMATION_VARIABLE, "on")
