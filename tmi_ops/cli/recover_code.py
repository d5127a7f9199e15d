"""`tmi-ops recover code`: the yes that a recovery launched from Dagster's page needs."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from tmi_ops.settings import load_settings

JOBS = ("recover_corruption", "recover_everything", "recover_rows")


@click.command(short_help="Print a code that confirms one launch from Dagster's page.")
@click.argument("job", type=click.Choice(JOBS))
def code(job: str) -> int:
    """Print a code that confirms one launch of JOB from Dagster's page, within 15 minutes.

    Run this as the account that runs the job, with its TMI_OPS_HOME: nobody else can make a code that it takes.
    """
    from tmi_ops.runbooks.launching import new_code

    settings = load_settings()
    click.echo(new_code(settings.home, settings.environment, job, datetime.now(UTC)))
    return 0
