"""When the command was begun: what a person waits for includes the reading and planning before the first step."""

from __future__ import annotations

from datetime import UTC, datetime

import click

_BEGAN = "tmi_ops.began"


def note_beginning(context: click.Context) -> None:
    """To be called before anything else is done."""
    context.meta[_BEGAN] = datetime.now(UTC)


def command_began() -> datetime:
    """When the command that runs now was begun."""
    context = click.get_current_context(silent=True)
    began = None if context is None else context.meta.get(_BEGAN)
    return began if isinstance(began, datetime) else datetime.now(UTC)
