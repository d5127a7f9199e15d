"""`tmi-ops recover everything`."""

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
@click.command(short_help="Recover from the store alone into a new cluster.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="New data directory; must be absent or empty.",
)
@click.option("--from-shadow", is_flag=True, help="Promote this machine's shadow instead of restoring; takes seconds.")
@of_a_moment
@candidates_option
@click.option(
    "--cluster",
    metavar="SYSTEM_ID",
    help="System identifier of the cluster to recover. Default: that of the newest base backup.",
)
@of_a_server
@of_a_run
def everything(
    into: Path,
    from_shadow: bool,
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    latest: bool,
    backup: str | None,
    candidates: int,
    cluster: str | None,
    cache: bool,
    yes: bool,
    dry_run: bool,
    quiet: bool,
    **server: Any,
) -> int:
    """Recover from the store alone into a new cluster in DIR, and put it into service.

    Needs only the store's settings (TMI_OPS_S3_*, AWS credentials, TMI_OPS_AGE_IDENTITY_FILE) and PostgreSQL's
    programs. Restores and checks a base backup and WAL, or the newest logical backup if the store has no base backup.
    --from-shadow promotes this machine's shadow instead. Configures the cluster for this machine, starts it, sets a
    password for the application's role, and writes the new connection strings to files that only you can read.

    Exit codes: 0 done, 2 failed. Continue with `tmi-ops recover resume`, or undo with `tmi-ops recover back`.
    """
    from tmi_ops.runbooks.everything.planning import EverythingRequest, prepare_everything

    settings, store = open_environment(Purpose.RUNBOOK)
    request = EverythingRequest(
        into=into.absolute(),
        serve=serve_request(server, default_port=settings.postgres.port),
        moment=moment_of(to_time, to_lsn, to_name, latest=latest),
        backup=backup,
        cluster=cluster,
        limit=candidates,
        with_cache=cache,
        owner=server["owner"],
        from_shadow=from_shadow,
    )
    if from_shadow and (request.moment is not None or backup is not None):
        raise click.UsageError("--from-shadow recovers to the end of the archive; omit the moment and --backup")
    with reporting(quiet) as report:
        plan = prepare_everything(settings, store, request, report)
    return run_plan(settings, store, plan, yes=yes, dry_run=dry_run, quiet=quiet)
