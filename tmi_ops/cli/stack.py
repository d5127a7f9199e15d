"""`tmi-ops up`, `down` and `stack`: the embedded stack."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from tmi_ops.cli.automation import automate_what_starts
from tmi_ops.cli.options import json_option, yes_option
from tmi_ops.cli.terminal import TerminalReport, err, format_duration, out
from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError, StackError
from tmi_ops.settings import Settings, load_settings
from tmi_ops.stack.background import destroy_stack, start_stack_in_background, stop_stack
from tmi_ops.stack.credentials import stack_credentials
from tmi_ops.stack.environment import ENVIRONMENT, as_shell_exports, dagster_variables
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.state import ServiceState, StackState, stack_is_running
from tmi_ops.stack.supervisor import AlreadyRunningError, stop_on_signals, supervised_stack

NOT_RUNNING = 1
CONDITION_COLOURS = {"starting": "yellow", "running": "green", "restarting": "red"}


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when the stack is up.")
@click.option("--no-dagster", is_flag=True, help="Start only the servers: PostgreSQL, S3, Valkey.")
@click.option("--automate", is_flag=True, help="Turn on Dagster's schedules and sensors.")
def up(detach: bool, no_dagster: bool, automate: bool) -> None:
    """Start the embedded stack: PostgreSQL, S3, Valkey, and Dagster's UI and daemon.

    Runs in the foreground until Ctrl-C, and restarts a server that dies. Data, passwords and logs are kept in
    TMI_OPS_HOME.
    """
    if automate:
        automate_what_starts()
    home = _stack_settings().home
    running = stack_is_running(home)
    if running is not None and running.ready:
        _already_running(running)
    elif detach:
        with TerminalReport().running() as report:
            state = start_stack_in_background(home, report, with_dagster=not no_dagster)
        _show(state, "Stop it with: tmi-ops down")
    else:
        _hold(home, with_dagster=not no_dagster)


@click.command()
def down() -> None:
    """Stop the stack and keep its data."""
    home = load_settings().home
    with TerminalReport().running() as report, report.phase("stop the stack", total=1, unit="steps"):
        was_running = stop_stack(home)
    out.print(f"The stack is down; its data is kept in {home}." if was_running else "The stack was not running.")


@click.group()
def stack() -> None:
    """Show the stack's status, or reset it."""


@stack.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show the stack's services and their addresses. Exit code 1 if the stack is down."""
    home = load_settings().home
    state = stack_is_running(home)
    if as_json:
        click.echo(state.model_dump_json(indent=2) if state else "null")
    elif state is not None:
        _show(state)
    else:
        out.print(f"The stack in {home} is down. To start it: [bold]tmi-ops up[/]", soft_wrap=True)
    if state is None:
        context.exit(NOT_RUNNING)


@stack.command()
@click.option("--database", is_flag=True, help="Delete only TMI's database; keep backups, cache and Dagster's records.")
@yes_option
def reset(database: bool, yes: bool) -> None:
    """Delete the stack's data: TMI's database, the backups, the cache and Dagster's records.

    A running stack is stopped first and started again, empty.
    """
    home = _stack_settings().home
    was = stack_is_running(home)
    what = "TMI's database in the stack" if database else "TMI's database, ALL BACKUPS, the cache and Dagster's records"
    if not yes:
        click.confirm(f"This deletes {what} in {home}. It cannot be undone. Continue?", abort=True)
    with TerminalReport().running() as report:
        with report.phase("delete", total=1, unit="steps"):
            destroy_stack(home, database_only=database)
        if was is not None:
            start_stack_in_background(home, report, with_dagster=was.with_dagster)
    out.print(f"Deleted {what}.")
    out.print("The stack is running again, in the background." if was else "To start the stack: tmi-ops up")


@stack.command()
def env() -> None:
    """Print the variables that `dagster` commands need: eval "$(tmi-ops stack env)"."""
    layout = StackLayout(load_settings().home)
    state = stack_is_running(layout.home)
    if state is None:
        raise StackError("The stack is down, so its addresses are unknown.", detail="", hint="tmi-ops up")
    click.echo(
        as_shell_exports(dagster_variables(layout, state.ports, stack_credentials(layout.credentials))), nl=False
    )


def _stack_settings() -> Settings:
    settings = load_settings()
    if settings.environment != ENVIRONMENT:
        raise SettingsError(
            f"The embedded stack is for development only, and TMI_ENV is {settings.environment}.",
            hint="unset TMI_ENV to use the stack",
            code=Code.NOT_IN_ENVIRONMENT,
        )
    return settings


def _hold(home: Path, *, with_dagster: bool) -> None:
    """Run the supervisor in the foreground."""
    try:
        with (
            stop_on_signals() as stop,
            supervised_stack(home, pg_bindir=load_settings().pg_bindir, with_dagster=with_dagster, stop=stop) as held,
        ):
            try:
                with TerminalReport().running() as report:
                    state = held.start(report)
                if state.ready:
                    _show(state, "Stop it with Ctrl-C")
                    held.watch(_say)
            finally:
                err.print("Stopping the stack; its data is kept.")
                with TerminalReport().running() as report:
                    held.stop(report)
    except AlreadyRunningError:
        running = stack_is_running(home)
        if running is None:
            raise
        _already_running(running)


def _already_running(state: StackState) -> None:
    out.print("The stack is already running.")
    _show(state)


def _say(message: str) -> None:
    err.print(f"{datetime.now().astimezone():%H:%M:%S} {message}", soft_wrap=True)


def _condition(service: ServiceState) -> str:
    """Empty if all is well."""
    words: list[str] = [] if service.condition == "running" else [service.condition]
    if service.restarts:
        words.append(f"restarted {service.restarts}x")
    return ", ".join(words)


def _show(state: StackState, hint: str = "") -> None:
    table = Table(box=None, padding=(0, 2), pad_edge=False, show_header=False)
    for service in state.services:
        mark = f"[{CONDITION_COLOURS[service.condition]}]●[/]"
        table.add_row(mark, f"[bold]{service.name}[/]", service.purpose, service.address, _condition(service))
    out.print()
    out.print(table)
    out.print()
    if state.ui_url:
        out.print(f"  Dagster UI  [bold cyan]{state.ui_url}[/]", soft_wrap=True)
    seconds = (datetime.now().astimezone() - state.started_at).total_seconds()
    out.print(f"  home        {state.home}   (logs in stack/logs)", soft_wrap=True)
    out.print(f"  supervisor  process {state.supervisor_pid}, for {format_duration(seconds)}")
    if not load_settings().uses_embedded_stack:
        out.print(
            "  [yellow]note[/]        POSTGRES_* is set in the environment or a .env file: tmi_ops uses that database"
        )
    if hint:
        out.print(f"  {hint}")
