"""What nearly every command opens first: the settings and the store of the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from tmi_ops.cli.terminal import TerminalReport
from tmi_ops.settings import Purpose, Settings, load_settings
from tmi_ops.store.objects import ObjectStore, open_store


def open_environment(purpose: Purpose | None = None) -> tuple[Settings, ObjectStore]:
    """Read the settings, with the role for this purpose, and open the store."""
    settings = load_settings(purpose=purpose)
    return settings, open_store(settings.store, settings.environment)


@contextmanager
def reporting(quiet: bool = False) -> Iterator[TerminalReport]:
    """Show progress bars on stderr during a `with` block."""
    with TerminalReport(quiet=quiet).running() as report:
        yield report


def libraries_of_copies(settings: Settings) -> str:
    """What a plan says about libraries that a restored server loads; empty if it loads none."""
    names = ", ".join(settings.copy_libraries)
    return f"The restored server loads {names} during replay (TMI_OPS_COPY_LIBRARIES)." if names else ""


def logs_in_for(purpose: Purpose) -> Callable[[click.Command], click.Command]:
    """Add to a command's help which role it connects as."""

    def say(command: click.Command) -> click.Command:
        need = purpose.need
        others = [need.falls_back.user_variable] if need.falls_back else []
        names = " or else ".join([purpose.user_variable, *others, "POSTGRES_USER"])
        command.epilog = f"Connects to PostgreSQL as {names}. Required rights ({purpose}): {need.rights.describe()}."
        return command

    return say
