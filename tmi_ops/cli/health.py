"""`tmi-ops health`: the health of the database, with advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import exact_bloat_option, json_option, strict_option, verbose_option
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.health.examine import HealthReport

CRITICAL = 1
COULD_NOT_CHECK = 2


@logs_in_for(Purpose.MONITOR)
@click.command()
@json_option
@click.option(
    "--probe", "only", multiple=True, metavar="NAME", help="Run only this probe and show its table; repeatable."
)
@exact_bloat_option
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="NAME=WARNING,CRITICAL",
    help="Thresholds of a probe; leave one empty to turn it off. Repeatable.",
)
@strict_option
@verbose_option("the table of every probe and the SQL that helps")
def health(
    as_json: bool, only: tuple[str, ...], exact_bloat: bool, thresholds: tuple[str, ...], strict: bool, verbose: bool
) -> int:
    """Check the health of the database. Changes nothing.

    Probes activity, storage, vacuum, WAL and replication, indexes, schema and security. A role with pg_monitor and
    CONNECT is sufficient; what it may not read is `unknown`, with the GRANT that is missing. Rates are measured since
    the previous run.

    Exit codes: 0 nothing critical, 1 something critical (with --strict also a warning), 2 could not check.
    """
    from tmi_ops.cli.health_view import as_facts, show_health
    from tmi_ops.health.examine import Examination, examine
    from tmi_ops.progress import SilentReport
    from tmi_ops.settings import load_settings, read_variables

    reader = load_settings(purpose=Purpose.BACKUP).postgres
    how = Examination(only, thresholds, exact_bloat, read_variables(), reader)
    report = examine(load_settings(purpose=Purpose.MONITOR), how, SilentReport())
    if as_json:
        echo_json(as_facts(report))
    else:
        show_health(report, tables=verbose or bool(only))
    return _exit_code(report, strict=strict)


def _exit_code(report: HealthReport, *, strict: bool) -> int:
    from tmi_ops.checks.finding import Outcome

    if report.at(Outcome.CRITICAL) or (strict and report.at(Outcome.WARNING)):
        return CRITICAL
    return COULD_NOT_CHECK if report.told_nothing else 0
