"""What nearly every command opens first: the settings of TMI_ENV, and the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from tmi_ops.cli.terminal import TerminalReport
from tmi_ops.settings import Purpose, Settings, load_settings
from tmi_ops.store.objects import ObjectStore, open_store


def open_environment(purpose: Purpose | None = None) -> tuple[Settings, ObjectStore]:
    """Read the settings, with the role that does what this is for, and open the store they name."""
    settings = load_settings(purpose=purpose)
    return settings, open_store(settings.store, settings.environment)


@contextmanager
def reporting(quiet: bool = False) -> Iterator[TerminalReport]:
    """Progress bars on stderr for the length of a `with` block."""
    with TerminalReport(quiet=quiet).running() as report:
        yield report


def libraries_of_copies(settings: Settings) -> str:
    """What a plan says of code that servers of ours load; empty where they load none."""
    names = ", ".join(settings.copy_libraries)
    return f"Its server loads {names} during the replay (TMI_OPS_COPY_LIBRARIES)." if names else ""


def logs_in_for(purpose: Purpose) -> Callable[[click.Command], click.Command]:
    """Let a command's help say which role it logs in as."""

    def say(command: click.Command) -> click.Command:
        need = purpose.need
        others = [need.falls_back.user_variable] if need.falls_back else []
        names = ", else ".join([purpose.user_variable, *others, "POSTGRES_USER"])
        command.epilog = f"Logs in to PostgreSQL as {names} ({purpose}: {need.rights.words()})."
        return command

    return say
