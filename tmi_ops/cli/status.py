"""`tmi-ops status`: how far back we can recover, and how long it would take, on one screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.facts import echo_facts
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.objectives.status import Status
    from tmi_ops.settings import Declared

NOT_MET = 1
COULD_NOT_LOOK = 2


@logs_in_for(Purpose.MONITOR)
@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs; with --watch a line for each look.")
@click.option(
    "--watch",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=10.0,
    metavar="[SECONDS]",
    help="Look again every so many seconds (10 unless told) until Ctrl-C.",
)
@click.option("--all", "everything", is_flag=True, help="All that tmi-ops.toml names, side by side.")
def status(as_json: bool, watch: float | None, everything: bool) -> int:
    """How far back we can recover, and how long it would take. Changes nothing.

    Reads the store and asks the database and Dagster's records beside it; what cannot be asked is said so, line by
    line, and the rest is shown. Only what a restore or drill has proven counts. At risk means: three quarters of the
    objective are used up. Health and schema are shown as they were found last, with the age of that.

    Exit codes: 0 both objectives are met, 1 one is at risk, breached or unproven, 2 store or database could not be
    looked at. With --all: the highest of all.
    """
    if everything:
        if watch is not None:
            raise click.UsageError("--all looks once: leave out --watch, or watch one with -e NAME.")
        from tmi_ops.cli.status_all import show_all

        return show_all(as_json=as_json)
    if watch is not None:
        return _keep_looking(watch, as_json=as_json)
    found = look()
    if as_json:
        from tmi_ops.cli.status_facts import as_facts

        echo_facts(as_facts(found))
    else:
        from tmi_ops.cli.status_view import status_screen
        from tmi_ops.cli.terminal import out

        out.print(status_screen(found))
    return exit_code(found)


def exit_code(found: Status) -> int:
    """What was seen to be wrong goes before what could not be seen."""
    from tmi_ops.objectives.standing import Standing

    if found.recoverability is None:
        return COULD_NOT_LOOK
    if found.standing is not Standing.MET:
        return NOT_MET
    return 0 if found.saw_all else COULD_NOT_LOOK


def look(of: Declared | None = None) -> Status:
    """Everything, as the settings say.

    Args:
        of: another one than TMI_ENV names.

    Raises:
        SettingsError: they are malformed.
    """
    from tmi_ops.cli.dagster_records import dagster_variables
    from tmi_ops.objectives.status import read_status
    from tmi_ops.settings import load_settings, variables_of

    settings = load_settings(purpose=Purpose.MONITOR, of=of)
    return read_status(settings, variables_of(settings), dagster_variables(settings))


def _keep_looking(every: float, *, as_json: bool) -> int:
    """Until Ctrl-C, which is how one ends it: the exit code is that of the last look."""
    from rich.live import Live

    from tmi_ops.cli.lasting import reader_is_gone
    from tmi_ops.cli.status_facts import as_facts
    from tmi_ops.cli.status_view import status_screen
    from tmi_ops.cli.terminal import out

    found = look()
    try:
        if as_json:
            while not reader_is_gone():
                echo_facts(as_facts(found), indent=None)
                time.sleep(every)
                found = look()
            return exit_code(found)
        with Live(status_screen(found), console=out, screen=out.is_terminal, auto_refresh=False) as live:
            while not reader_is_gone():
                time.sleep(every)
                found = look()
                live.update(status_screen(found), refresh=True)
    except KeyboardInterrupt:
        pass
    return exit_code(found)
