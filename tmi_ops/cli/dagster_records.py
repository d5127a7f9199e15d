"""Where Dagster keeps its records, for commands that read them without Dagster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tmi_ops.errors import OpsError
from tmi_ops.settings import Settings, load_settings


def dagster_variables(settings: Settings | None = None) -> Mapping[str, str]:
    """The variables of Dagster's storage: those of the process, or the embedded stack's."""
    if os.environ.get("DAGSTER_PG_HOST"):
        return os.environ
    try:
        settings = settings or load_settings()
    except OpsError:
        return {}  # reading the settings raises it again
    return _of_the_stack(settings.home) if settings.uses_embedded_stack else {}


def _of_the_stack(home: Path) -> Mapping[str, str]:
    from tmi_ops.stack.credentials import stack_credentials
    from tmi_ops.stack.environment import dagster_variables
    from tmi_ops.stack.layout import StackLayout
    from tmi_ops.stack.state import stack_is_running

    layout = StackLayout(home)
    state = stack_is_running(layout.home)
    if state is None or not state.with_dagster or not layout.credentials.exists():
        return {}
    return dagster_variables(layout, state.ports, stack_credentials(layout.credentials))
