"""`tmi-ops doctor`: what is broken, why, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import json_option, verbose_option

if TYPE_CHECKING:
    from tmi_ops.diagnosis.finding import Diagnosis

BROKEN = 1
COULD_NOT_LOOK = 2


@click.command()
@json_option
@verbose_option("how to fix every finding, not only the first")
def doctor(as_json: bool, verbose: bool) -> int:
    """Check everything that backups depend on, from the settings to the schedules, and name the root cause.

    Checks settings, PostgreSQL (host name, port, TLS, pg_hba.conf, password, database, rights, WAL, slots), the store
    (address, clock, keys, bucket, rights), Redis, disk, PostgreSQL programs, and Dagster. Skips what depends on a
    failed check. Changes nothing except for a small object in the store, which it removes again.

    Exit codes: 0 healthy (warnings included), 1 something is broken, 2 something could not be checked.
    """
    from tmi_ops.cli.dagster_records import dagster_variables
    from tmi_ops.cli.doctor_view import as_facts, show_close, watch_results
    from tmi_ops.diagnosis.diagnose import diagnose

    dagster = dagster_variables()
    if as_json:
        diagnosis = diagnose(dagster=dagster)
        echo_json(as_facts(diagnosis))
    else:
        diagnosis = diagnose(dagster=dagster, watch=watch_results(verbose=verbose))
        show_close(diagnosis)
    return _exit_code(diagnosis)


def _exit_code(diagnosis: Diagnosis) -> int:
    from tmi_ops.checks.finding import Outcome

    if diagnosis.at(Outcome.CRITICAL):
        return BROKEN
    return 0 if diagnosis.healthy else COULD_NOT_LOOK
