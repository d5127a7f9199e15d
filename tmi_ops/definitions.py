"""The code location: what it serves.

TMI_ENV names one environment, which is served alone, by plain names. Where it names none and tmi-ops.toml several, all
are served side by side, each by names of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from dagster import Definitions

from tmi_ops.orchestration.serving import environment_definitions, fleet_definitions
from tmi_ops.settings import environment_name, find_fleet
from tmi_ops.settings.sources import process_variables

__all__ = ["defs", "environment_definitions", "fleet_definitions", "served_definitions"]


def served_definitions() -> Definitions:
    """As the process's variables and tmi-ops.toml say."""
    process = process_variables(os.environ)
    fleet = find_fleet(process, Path.cwd())
    if fleet is None or "TMI_ENV" in process or len(fleet.members) == 1:
        return environment_definitions(environment_name())
    return fleet_definitions(fleet.members)


defs = served_definitions()
