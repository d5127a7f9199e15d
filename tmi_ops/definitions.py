"""The definitions of the code location.

With TMI_ENV it serves one environment, under plain names. Without TMI_ENV, and with several environments in
tmi-ops.toml, it serves all of them, each under its own names.
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
    """The definitions for the process's variables and tmi-ops.toml."""
    process = process_variables(os.environ)
    fleet = find_fleet(process, Path.cwd())
    if fleet is None or "TMI_ENV" in process or len(fleet.members) == 1:
        return environment_definitions(environment_name())
    return fleet_definitions(fleet.members)


defs = served_definitions()
