"""When the command started: the RTO of a run includes reading and planning before its first step."""

from __future__ import annotations

from datetime import UTC, datetime

import click

_STARTED = "tmi_ops.began"


def note_start(context: click.Context) -> None:
    """Call this before anything else."""
    context.meta[_STARTED] = datetime.now(UTC)


def command_started() -> datetime:
    """When the running command started."""
    context = click.get_current_context(silent=True)
    began = None if context is None else context.meta.get(_STARTED)
    return began if isinstance(began, datetime) else datetime.now(UTC)
