"""`tmi-ops recover code`: the confirmation that a recovery launched from Dagster's page needs."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from rich.markup import escape

from tmi_ops.cli.terminal import err
from tmi_ops.settings import load_settings

JOBS = ("recover_corruption", "recover_everything", "recover_rows")


@click.command(short_help="Print a code that confirms one launch from Dagster's page.")
@click.argument("job", type=click.Choice(JOBS))
@click.argument("plan", default="")
def code(job: str, plan: str) -> int:
    """Print a code that confirms one launch of JOB from Dagster's page within 15 minutes.

    PLAN is the name in the metadata of a launch without `confirm`. The plan is shown again here, and the code is valid
    only for this plan: a launch that would do anything else is refused.

    Run this as the account that runs the job, with its TMI_OPS_HOME. Codes of other accounts are not accepted.
    """
    from tmi_ops.runbooks.codes import looked_at, new_code

    settings, now = load_settings(), datetime.now(UTC)
    found = looked_at(settings.home, settings.environment, job, plan, now)
    err.print(f"{job} in {settings.environment}, plan {found.name}:", style="bold")
    for line in found.texts:
        err.print(f"  {escape(line)}", soft_wrap=True)
    click.echo(new_code(settings.home, found, now))
    return 0
