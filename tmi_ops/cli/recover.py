"""`tmi-ops recover ...`: the commands for all runs; each runbook has its own module."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import cache_option, html_option, json_option, quiet_option, yes_option
from tmi_ops.cli.recover_code import code
from tmi_ops.cli.recover_corruption import corruption
from tmi_ops.cli.recover_diff import diff
from tmi_ops.cli.recover_everything import everything
from tmi_ops.cli.recover_find import find
from tmi_ops.cli.recover_rows import rows
from tmi_ops.cli.recover_view import go_on, show_interruption, show_plan, show_run
from tmi_ops.cli.streams import through_hangups
from tmi_ops.cli.terminal import format_age, out
from tmi_ops.settings import Purpose
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.runbooks.journal import Journal
    from tmi_ops.settings import Settings

_COLOURS = {
    "done": "green",
    "deferred": "yellow",
    "taken back": "yellow",
    "stopped": "red",
    "under way": "cyan",
    "crashed": "red",
    "not started": "dim",
}
_SHOWN = 20


@click.group()
def recover() -> None:
    """Recover from a disaster with a runbook: a printed plan, recorded steps, resumable after a crash."""


for command in (find, diff, rows, corruption, everything, code):
    recover.add_command(command)


@logs_in_for(Purpose.RUNBOOK)
@recover.command(short_help="Resume a run that stopped or crashed.")
@click.argument("run_id", default="latest")
@cache_option
@yes_option
@quiet_option
def resume(run_id: str, cache: bool, yes: bool, quiet: bool) -> int:
    """Resume a run that stopped or crashed, or do its deferred steps.

    RUN_ID is a run's id or the beginning of one. Default: the latest run.
    """
    from tmi_ops.runbooks.catalogue import actions_for
    from tmi_ops.runbooks.logbook import find_run
    from tmi_ops.runbooks.steps.cache import CACHE_STEP, LEFT_OUT

    settings, store = open_environment(Purpose.RUNBOOK)
    logbook, journal = find_run(settings, store, run_id)
    if journal.state == "done" and not journal.deferred:
        out.print(f"{journal.run_id} is done; there is nothing to resume.")
        return 0
    show_plan(journal.plan, journal)
    if journal.last_host != platform.node():
        out.print(
            f"[yellow]Note:[/] this run was executed on {escape(journal.last_host)} until now. Make sure that nobody "
            "resumes it there. Whatever it needs from that machine is created again here."
        )
    actions = actions_for(journal.plan)
    if not cache:
        actions = {**actions, CACHE_STEP: LEFT_OUT}
    return go_on(settings, store, logbook, actions, yes=yes, quiet=quiet)


@logs_in_for(Purpose.RUNBOOK)
@recover.command(short_help="Undo a run that is not finished.")
@click.argument("run_id", default="latest")
@yes_option
@quiet_option
def back(run_id: str, yes: bool, quiet: bool) -> int:
    """Undo a run that is not finished, from its last step to its first.

    RUN_ID is a run's id or the beginning of one. Default: the latest run.
    """
    from tmi_ops.runbooks.catalogue import actions_for
    from tmi_ops.runbooks.execution import undo_run
    from tmi_ops.runbooks.logbook import find_run

    settings, store = open_environment(Purpose.RUNBOOK)
    logbook, journal = find_run(settings, store, run_id)
    actions = actions_for(journal.plan)
    out.print(f"Undo [bold]{journal.run_id}[/] ({escape(journal.plan.subject)}):")
    for step in reversed(journal.plan.steps):
        if journal.last(step.name) is not None and step.way_back:
            out.print(f"  - {step.name}: {escape(step.way_back)}")
    if not yes:
        click.confirm("Undo this run?", abort=True)
    try:
        with through_hangups(), reporting(quiet) as report:
            done = undo_run(settings, store, logbook, actions, report)
    except KeyboardInterrupt:
        return show_interruption(logbook)
    show_run(done, settings, store)
    return 0


@recover.command(name="list")
@json_option
def list_(as_json: bool) -> int:
    """List the runs of this environment, newest first."""
    from tmi_ops.runbooks.journal import shown
    from tmi_ops.runbooks.logbook import list_runs

    settings, store = open_environment(Purpose.RUNBOOK)
    with reporting(quiet=True) as report:
        runs = list_runs(settings, store, report)
    if as_json:
        click.echo("[" + ",\n".join(run.model_dump_json() for run in runs) + "]")
        return 0
    if not runs:
        out.print("There are no runs.")
        return 0
    table = Table(box=None, padding=(0, 1))
    table.add_column("run", no_wrap=True, min_width=max(len(run.run_id) for run in runs[:_SHOWN]))
    for heading in ("started", "state", "steps", "took"):
        table.add_column(heading, overflow="fold")
    for run in runs[:_SHOWN]:
        state = _state(run, settings)
        table.add_row(
            run.run_id,
            format_age(run.started_at),
            f"[{_COLOURS[state]}]{shown(state)}[/]",
            f"{len(run.done)} of {len(run.plan.steps)}",
            format_duration((run.ended_at - run.started_at).total_seconds()),
        )
    out.print(table)
    if len(runs) > _SHOWN:
        out.print(f"and {len(runs) - _SHOWN} older runs (--json lists all)")
    return 0


def _state(run: Journal, settings: Settings) -> str:
    if run.state == "done" and run.deferred:
        return "deferred"
    if not _is_crashed(run, settings):
        return run.state
    return "crashed" if run.attempts else "not started"


def _is_crashed(run: Journal, settings: Settings) -> bool:
    """Its journal says under way and is on this machine, but no process here executes it."""
    from tmi_ops.runbooks.logbook import JOURNAL, logbook_of

    logbook = logbook_of(settings, None, run.run_id)
    return run.state == "under way" and (logbook.directory / JOURNAL).exists() and not logbook.busy


@recover.command(short_help="Show the steps and check results of a run.")
@click.argument("run_id", default="latest")
@html_option
@json_option
def show(run_id: str, html: Path | None, as_json: bool) -> int:
    """Show the steps and check results of a run.

    RUN_ID is a run's id or the beginning of one. Default: the latest run.
    """
    from tmi_ops.runbooks.evidence import evidence_json, evidence_of, evidence_page
    from tmi_ops.runbooks.logbook import find_run

    settings, store = open_environment(Purpose.RUNBOOK)
    _, journal = find_run(settings, store, run_id)
    evidence = evidence_of(journal)
    if html is not None:
        html.write_text(evidence_page(evidence))
    if as_json:
        click.echo(evidence_json(evidence))
    else:
        show_run(journal, settings, store)
    return 0
