"""`tmi-ops recover everything`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.recover_options import moment_of, of_a_moment, of_a_run, of_a_server, serve_wish
from tmi_ops.cli.recover_view import run_plan
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.RUNBOOK)
@click.command(short_help="All is lost but the store: a new cluster, into service.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The new data directory, absent or empty.",
)
@click.option("--from-shadow", is_flag=True, help="Promote this machine's shadow: seconds instead of a restore.")
@of_a_moment
@click.option("--candidates", type=click.IntRange(1), default=8, help="How many restores may be tried.")
@click.option("--cluster", metavar="SYSTEM_ID", help="Which cluster. Default: that of the newest base backup.")
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
    plan_only: bool,
    quiet: bool,
    **server: Any,
) -> int:
    """All is lost but the store and its key: a new cluster in DIR, into service.

    Needs the store's settings only (TMI_OPS_S3_*, AWS's credentials, TMI_OPS_AGE_IDENTITY_FILE) and PostgreSQL's
    programs. Base backup and WAL are restored and checked; where the store has no base backup, the newest logical one
    is. --from-shadow promotes this machine's shadow instead. The cluster is configured for this machine and
    started, the application's role gets a password, and the new connection strings are written to files that only
    you may read.

    Exit codes: 0 done, 2 could not; `tmi-ops recover resume` goes on, `tmi-ops recover back` goes back.
    """
    from tmi_ops.runbooks.everything.planning import EverythingWish, prepare_everything

    settings, store = open_environment(Purpose.RUNBOOK)
    wish = EverythingWish(
        into=into.absolute(),
        serve=serve_wish(server, default_port=settings.postgres.port),
        moment=moment_of(to_time, to_lsn, to_name, latest=latest),
        backup=backup,
        cluster=cluster,
        limit=candidates,
        with_cache=cache,
        owner=server["owner"],
        from_shadow=from_shadow,
    )
    if from_shadow and (wish.moment is not None or backup is not None):
        raise click.UsageError("--from-shadow recovers all that is archived: leave out the moment and --backup")
    with reporting(quiet) as report:
        plan = prepare_everything(settings, store, wish, report)
    return run_plan(settings, store, plan, yes=yes, plan_only=plan_only, quiet=quiet)
