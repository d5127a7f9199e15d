"""`tmi-ops recover corruption`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import candidates_option
from tmi_ops.cli.recover_options import moment_of, of_a_moment, of_a_run, of_a_server, serve_request
from tmi_ops.cli.recover_view import run_plan
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.RUNBOOK)
@click.command(short_help="Recover damaged data to the last good moment.")
@of_a_moment
@candidates_option
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Put a new cluster into service from this empty directory and leave the damaged server closed. Default: swap "
    "the database on its own server.",
)
@of_a_server
@of_a_run
def corruption(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    latest: bool,
    backup: str | None,
    candidates: int,
    into: Path | None,
    cache: bool,
    yes: bool,
    dry_run: bool,
    quiet: bool,
    **server: Any,
) -> int:
    """Recover damaged data to the last good moment, and keep the damaged data.

    Shuts the application out, restores a base backup and WAL on this machine, and checks the result. Then the recovered
    database replaces the damaged one on the same server, where that is kept under another name; or, with --into, a new
    cluster goes into service. Without a moment, candidates are restored to find the last good one.

    You are asked before the application is shut out, and again, with the check results, before anything that cannot be
    undone. Exit codes: 0 done, 2 failed. Continue with `tmi-ops recover resume`, or undo with `tmi-ops recover back`.
    """
    from tmi_ops.runbooks.corruption.planning import CorruptionRequest, prepare_corruption

    target = moment_of(to_time, to_lsn, to_name, latest=latest)
    if into is None and any(server.values()):
        raise click.UsageError("the options for a new server need --into")
    settings, store = open_environment(Purpose.RUNBOOK)
    serve = serve_request(server, default_port=settings.postgres.port) if into else None
    request = CorruptionRequest(
        target, backup, into.absolute() if into else None, serve, candidates, cache, server["owner"]
    )
    with reporting(quiet) as report:
        plan = prepare_corruption(settings, store, request, report)
    return run_plan(settings, store, plan, yes=yes, dry_run=dry_run, quiet=quiet)
