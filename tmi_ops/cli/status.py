"""`tmi-ops status`: RPO, RTO and the recovery window on one screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import json_option
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.objectives.status import Status
    from tmi_ops.settings import Declared

NOT_MET = 1
COULD_NOT_LOOK = 2


@logs_in_for(Purpose.MONITOR)
@click.command()
@json_option
@click.option(
    "--watch",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=10.0,
    metavar="[SECONDS]",
    help="Repeat every SECONDS (default 10) until Ctrl-C. With --json: one line each time.",
)
@click.option("--all", "everything", is_flag=True, help="Show every environment and database in tmi-ops.toml.")
def status(as_json: bool, watch: float | None, everything: bool) -> int:
    """Show how far back you can recover, and how long it would take. Changes nothing.

    Reads the store, the database and Dagster's records; if one cannot be read, its line says so and the rest is shown.
    Only recovery points that a restore or drill has verified count. At risk: more than three quarters of the objective
    are used up. Health and schema are those of the last check, with its age.

    Exit codes: 0 both objectives are met, 1 one is at risk, breached or not verified, 2 the store or the database could
    not be read. With --all: the highest of all.
    """
    if everything:
        if watch is not None:
            raise click.UsageError("--all cannot be used with --watch. Watch one environment with -e NAME.")
        from tmi_ops.cli.status_all import show_all

        return show_all(as_json=as_json)
    if watch is not None:
        return _keep_looking(watch, as_json=as_json)
    found = look()
    if as_json:
        from tmi_ops.cli.status_facts import as_facts

        echo_json(as_facts(found))
    else:
        from tmi_ops.cli.status_view import status_screen
        from tmi_ops.cli.terminal import out

        out.print(status_screen(found))
    return exit_code(found)


def exit_code(found: Status) -> int:
    """A known problem goes before what could not be read."""
    from tmi_ops.objectives.standing import Standing

    if found.recoverability is None:
        return COULD_NOT_LOOK
    if found.standing is not Standing.MET:
        return NOT_MET
    return 0 if found.saw_all else COULD_NOT_LOOK


def look(of: Declared | None = None) -> Status:
    """Read the status.

    Args:
        of: another environment than TMI_ENV names.

    Raises:
        SettingsError: its settings are malformed.
    """
    from tmi_ops.cli.dagster_records import dagster_variables
    from tmi_ops.objectives.status import read_status
    from tmi_ops.settings import load_settings, variables_of

    settings = load_settings(purpose=Purpose.MONITOR, of=of)
    return read_status(settings, variables_of(settings), dagster_variables(settings))


def _keep_looking(every: float, *, as_json: bool) -> int:
    """Repeat until Ctrl-C. The exit code is that of the last status."""
    from rich.live import Live

    from tmi_ops.cli.status_facts import as_facts
    from tmi_ops.cli.status_view import status_screen
    from tmi_ops.cli.streams import reader_is_gone
    from tmi_ops.cli.terminal import out

    found = look()
    try:
        if as_json:
            while not reader_is_gone():
                echo_json(as_facts(found), indent=None)
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
