"""`tmi-ops maintain`: the maintenance that health advises, planned and executed within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for, reporting
from tmi_ops.cli.options import dry_run_option, exact_bloat_option
from tmi_ops.cli.wrapping import echo_wrapped
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.health.maintenance.execution import Taken
    from tmi_ops.health.maintenance.limits import Limits
    from tmi_ops.health.maintenance.steps import Kind, Plan

NOT_ALL = 1
KINDS: tuple[Kind, ...] = ("connections", "vacuum", "analyze", "reindex")


@logs_in_for(Purpose.OWNER)
@click.command()
@dry_run_option
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Do only this; repeatable.")
@click.option("--terminate", is_flag=True, help="End sessions that are idle in a transaction or run a long query.")
@click.option(
    "--idle-longer-than", "idle", metavar="DURATION", help="How long a session to end was idle. Default: 10m."
)
@click.option(
    "--running-longer-than", "running", metavar="DURATION", help="How long a query to end has run. Default: 30m."
)
@click.option(
    "--window", metavar="HH:MM-HH:MM", help="Run only within these hours. Default: TMI_OPS_MAINTENANCE_WINDOW."
)
@click.option("--max-duration", metavar="DURATION", help="Stop after this time. Default: 1h.")
@click.option("--lock-timeout", metavar="DURATION", help="How long to wait for a lock. Default: 5s.")
@exact_bloat_option
def maintain(
    dry_run: bool,
    only: tuple[str, ...],
    terminate: bool,
    idle: str | None,
    running: str | None,
    window: str | None,
    max_duration: str | None,
    lock_timeout: str | None,
    exact_bloat: bool,
) -> int:
    """Run the maintenance that health advises.

    VACUUM and ANALYZE for tables that autovacuum neglects, REINDEX CONCURRENTLY for bloated and invalid indexes, DROP
    for the remains of an interrupted REINDEX. None of them blocks reads or writes. With --terminate, also ends sessions
    that block others, except those of superusers, of replication and of tmi_ops; a query is cancelled before its
    session is ended. --dry-run prints the statements and the locks they take.

    Exit codes: 0 all done, or nothing to do, 1 something was left out or failed, 2 error.
    """
    from tmi_ops.health.examine import Examination, examine
    from tmi_ops.health.maintenance.execution import execute, within_rights
    from tmi_ops.health.maintenance.planning import PROBES, plan_maintenance
    from tmi_ops.progress import SilentReport
    from tmi_ops.settings import load_settings, read_variables

    settings, variables = load_settings(purpose=Purpose.OWNER), read_variables()
    given = {"idle_s": idle, "running_s": running, "max_duration_s": max_duration, "lock_timeout_s": lock_timeout}
    limits = _limits(only, terminate, window, given, variables)
    how = Examination(only=PROBES, exact_bloat=exact_bloat, variables=variables)
    plan = plan_maintenance(examine(settings, how, SilentReport()).results, limits)
    if dry_run or plan.empty:
        _show_plan(within_rights(settings.postgres, plan) if plan.steps else plan)
        return 0
    with reporting() as report:
        taken = execute(settings.postgres, plan, limits, report)
    _show_taken(taken, plan)
    return 0 if all(one.outcome == "done" for one in taken) else NOT_ALL


def _limits(
    only: Sequence[str],
    terminate: bool,
    window: str | None,
    durations: Mapping[str, str | None],
    variables: Mapping[str, str],
) -> Limits:
    from tmi_ops.health.maintenance.limits import TIMEZONE_VARIABLE, WINDOW_VARIABLE, Limits, parse_window

    hours = window or variables.get(WINDOW_VARIABLE)
    return Limits(
        kinds=frozenset(kind for kind in KINDS if not only or kind in only),
        terminate=terminate,
        window=parse_window(hours, variables.get(TIMEZONE_VARIABLE) or "UTC") if hours else None,
        **{name: _seconds(words) for name, words in durations.items() if words},
    )


def _seconds(words: str) -> float:
    from tmi_ops.settings import parse_duration

    try:
        return parse_duration(words).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _show_plan(plan: Plan) -> None:
    """Print a script for psql to stdout; what is left to a person is in comments."""
    from tmi_ops.cli.checks_view import show_comment

    for step in plan.steps:
        show_comment(f"{step.subject}: {step.reason}; locks: {step.locks}")
        click.echo(step.sql)
    for one in plan.left_out:
        show_comment(f"left out: {one.subject}: {one.reason}", "yellow")
    if plan.empty:
        click.echo(
            "-- Nothing to do"
            + ("; the above is left to you." if plan.left_out else ": health advises no maintenance.")
        )
    else:
        echo_wrapped(f"{len(plan.steps)} steps; nothing was changed. `tmi-ops maintain` runs them.")


def _show_taken(taken: Sequence[Taken], plan: Plan) -> None:
    from rich.text import Text

    from tmi_ops.cli.terminal import out

    marks = {"done": ("✓", "green"), "left out": ("!", "yellow"), "failed": ("✗", "red")}
    for one in taken:
        mark, colour = marks[one.outcome]
        click.echo(f"{click.style(mark, fg=colour)} {one.step.sql} {one.note}")
    for left in plan.left_out:
        out.say(Text(f"! {left.subject}: {left.reason}", style="yellow"), hang=2)
