"""`tmi-ops up`, `down` and `stack`: the embedded stack from the command line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from tmi_ops.cli.automation import automate_what_starts
from tmi_ops.cli.terminal import TerminalReport, err, out, time_words
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
@click.option("--detach", "-d", is_flag=True, help="Return when the stack is up; it stays in the background.")
@click.option("--no-dagster", is_flag=True, help="Only the servers: PostgreSQL, S3, Valkey.")
@click.option("--automate", is_flag=True, help="Dagster's schedules and sensors run from the start.")
def up(detach: bool, no_dagster: bool, automate: bool) -> None:
    """Start the stack: PostgreSQL, S3, Valkey, and Dagster's UI and daemon.

    In the foreground it stays until Ctrl-C, restarts a server that dies, and stops all of them in order.
    Data, passwords and logs are kept below TMI_OPS_HOME and survive a restart.
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
    """Stop the stack; its data stays."""
    home = load_settings().home
    with TerminalReport().running() as report, report.phase("stop the stack", total=1, unit="steps"):
        was_running = stop_stack(home)
    out.print(f"The stack is down; its data stays in {home}." if was_running else "The stack was not running.")


@click.group()
def stack() -> None:
    """Look at the stack, or reset it."""


@stack.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, without secrets.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show what runs where. Exit code 1 when the stack is down."""
    home = load_settings().home
    state = stack_is_running(home)
    if as_json:
        click.echo(state.model_dump_json(indent=2) if state else "null")
    elif state is not None:
        _show(state)
    else:
        out.print(f"The stack in {home} is down. Start it with: [bold]tmi-ops up[/]", soft_wrap=True)
    if state is None:
        context.exit(NOT_RUNNING)


@stack.command()
@click.option("--database", is_flag=True, help="Only TMI's database; backups, cache and Dagster's records stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(database: bool, yes: bool) -> None:
    """Destroy the stack's data: TMI's database, the backups, the cache and Dagster's records.

    A stack that runs is stopped first and started again, empty.
    """
    home = _stack_settings().home
    was = stack_is_running(home)
    what = "TMI's database in the stack" if database else "TMI's database, ALL BACKUPS, the cache and Dagster's records"
    if not yes:
        click.confirm(f"This destroys {what}, below {home}. There is no way back. Go on?", abort=True)
    with TerminalReport().running() as report:
        with report.phase("destroy", total=1, unit="steps"):
            destroy_stack(home, database_only=database)
        if was is not None:
            start_stack_in_background(home, report, with_dagster=was.with_dagster)
    out.print(f"Destroyed {what}.")
    out.print("The stack is up again, in the background." if was else "Start afresh with: tmi-ops up")


@stack.command()
def env() -> None:
    """Print the variables plain `dagster` commands need: eval "$(tmi-ops stack env)"."""
    layout = StackLayout(load_settings().home)
    state = stack_is_running(layout.home)
    if state is None:
        raise StackError("The stack is down, so its addresses are not known.", detail="", hint="tmi-ops up")
    click.echo(
        as_shell_exports(dagster_variables(layout, state.ports, stack_credentials(layout.credentials))), nl=False
    )


def _stack_settings() -> Settings:
    settings = load_settings()
    if settings.environment != ENVIRONMENT:
        raise SettingsError(
            f"The embedded stack serves development alone, and TMI_ENV is {settings.environment}.",
            hint="unset TMI_ENV for the stack; other environments bring servers of their own",
        )
    return settings


def _hold(home: Path, *, with_dagster: bool) -> None:
    """Be the supervisor until told to stop."""
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
                err.print("Stopping the stack; its data stays.")
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
    """Nothing when all is well."""
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
    out.print(f"  supervisor  process {state.supervisor_pid}, for {time_words(seconds)}")
    if not load_settings().uses_embedded_stack:
        out.print(
            "  [yellow]note[/]        POSTGRES_* are set in the environment or a .env file: tmi_ops uses that database"
        )
    if hint:
        out.print(f"  {hint}")
