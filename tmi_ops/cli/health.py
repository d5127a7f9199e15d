"""`tmi-ops health`: is the database well, and what helps where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.facts import echo_facts
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.health.examine import HealthReport

CRITICAL = 1
COULD_NOT_CHECK = 2


@logs_in_for(Purpose.MONITOR)
@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print every reading and verdict as JSON.")
@click.option("--probe", "only", multiple=True, metavar="NAME", help="Ask this probe only, and show its table; repeat.")
@click.option("--exact-bloat", is_flag=True, help="Measure bloat with pgstattuple: reads the tables whole.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="NAME=WARNING,CRITICAL",
    help="Judge a probe by these limits; an empty half means never. Repeat.",
)
@click.option("--strict", is_flag=True, help="Exit 1 on a warning, too.")
@click.option("--verbose", "-v", is_flag=True, help="Show every probe's table and the SQL that helps.")
def health(
    as_json: bool, only: tuple[str, ...], exact_bloat: bool, thresholds: tuple[str, ...], strict: bool, verbose: bool
) -> int:
    """Ask the database how it is. Changes nothing.

    Probes of activity, storage, vacuum, WAL and replication, indexes, schema and security. A role with pg_monitor and
    CONNECT is enough; what it may not see is `unknown`, with the GRANT that would show it. Rates are measured from the
    reading of the run before.

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
        echo_facts(as_facts(report))
    else:
        show_health(report, tables=verbose or bool(only))
    return _exit_code(report, strict=strict)


def _exit_code(report: HealthReport, *, strict: bool) -> int:
    from tmi_ops.checks.finding import Outcome

    if report.at(Outcome.CRITICAL) or (strict and report.at(Outcome.WARNING)):
        return CRITICAL
    return COULD_NOT_CHECK if report.told_nothing else 0
