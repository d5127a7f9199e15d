"""`tmi-ops migrate` and `tmi-ops check`: the schema TMI needs, brought about and verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.facts import echo_facts
from tmi_ops.cli.wrapping import echo_wrapped
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.schema.operations import MigrationPlan
    from tmi_ops.schema.validation import Validation
    from tmi_ops.settings import Settings

FINDINGS, IN_THE_WAY = 1, 2


@logs_in_for(Purpose.OWNER)
@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Print the SQL and what each step locks; change nothing.")
@click.option("--validate", "only_validate", is_flag=True, help="Only validate, as `tmi-ops check` does.")
@click.option("--no-seed", is_flag=True, help="Do not insert the rows TMI needs before its first request.")
@click.option("--verbose", "-v", is_flag=True, help="Show DEBUG findings too.")
def migrate(only_plan: bool, only_validate: bool, no_seed: bool, verbose: bool) -> int:
    """Bring the database's schema up to date, online.

    Creates the database if it is missing, adds what the schema lacks, inserts the rows TMI needs and validates.
    Nothing is dropped or narrowed, and what holds up reads or writes lasts milliseconds. A second run does nothing.

    Exit codes: 0 done and valid, 1 done but validation found an ERROR, 2 could not.
    """
    from tmi_ops.cli.schema_view import show_result, show_verdict
    from tmi_ops.cli.terminal import TerminalReport
    from tmi_ops.schema import migration
    from tmi_ops.schema.validation import validate_schema
    from tmi_ops.settings import load_settings

    if only_plan and only_validate:
        raise click.UsageError("--plan and --validate exclude each other: --plan shows, --validate only checks.")
    settings = load_settings(purpose=Purpose.OWNER)
    _require_models(settings)
    postgres = settings.postgres
    if only_plan:
        plan = migration.plan_migration(postgres, seed=not no_seed)
        _show_plan(plan)
        return IN_THE_WAY if plan.lacking else 0
    if only_validate:
        verdict = validate_schema(postgres)
        show_verdict(verdict, verbose=verbose)
        return _record(settings, verdict)
    with TerminalReport().running() as report:
        result = migration.migrate(postgres, report, seed=not no_seed)
    show_result(result)
    show_verdict(result.validation, verbose=verbose, after_migration=True)
    return _record(settings, result.validation)


@logs_in_for(Purpose.OWNER)
@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole verdict as JSON, DEBUG included.")
@click.option("--verbose", "-v", is_flag=True, help="Show DEBUG findings too: what matches.")
def check(as_json: bool, verbose: bool) -> int:
    """Compare the database with the schema TMI needs. Changes nothing; what it found, `tmi-ops status` shows.

    Shows the connection, every table with its rows, and what differs. ERROR: TMI fails, or data is not what it is
    declared to be. WARN: something is not enforced, slow, or more than TMI's models know.

    Exit codes: 0 no ERROR, 1 at least one ERROR, 2 could not check.
    """
    from tmi_ops.cli.checks_view import finding_facts
    from tmi_ops.cli.schema_view import show_verdict
    from tmi_ops.schema.validation import validate_schema
    from tmi_ops.settings import load_settings

    settings = load_settings(purpose=Purpose.OWNER)
    _require_models(settings)
    verdict = validate_schema(settings.postgres)
    if as_json:
        found = [{**finding_facts(one.finding), **one.model_dump(mode="json")} for one in verdict.findings]
        echo_facts(verdict.model_dump(mode="json") | {"findings": found})
    else:
        show_verdict(verdict, verbose=verbose)
    return _record(settings, verdict)


def _require_models(settings: Settings) -> None:
    """Raises SettingsError: the profile declares no schema that could be compared or brought about."""
    from tmi_ops.errors import SettingsError

    if not settings.profile.has_models:
        raise SettingsError(
            f"The profile {settings.profile.name} declares no schema, so there is nothing to migrate or compare.",
            hint="the application migrates its own schema; for TMI's database unset TMI_OPS_PROFILE",
        )


def _record(settings: Settings, verdict: Validation) -> int:
    """Keep the verdict for `tmi-ops status`, after it was shown: a store that is away costs its time. The exit code."""
    from tmi_ops.health.record import record_schema
    from tmi_ops.settings import read_variables

    record_schema(settings, read_variables(), verdict.findings)
    return 0 if verdict.ok else FINDINGS


def _show_plan(plan: MigrationPlan) -> None:
    """On stdout the script alone, so that it can be kept or given to psql."""
    from tmi_ops.cli.schema_view import blocked_lines
    from tmi_ops.schema.rendering import script

    for line in script(plan).splitlines():
        click.secho(line, dim=True) if line.startswith("--") else click.echo(line)
    for line in blocked_lines(plan.blocked):
        click.echo(f"-- {line}")
    if plan.blocked:
        click.echo()
    for one in plan.lacking:
        click.secho(f"-- In the way: {one.table}: {one.reason} Next: {one.remedy}", fg="red")
    if plan.empty:
        waiting = "; what is above waits for you" if plan.blocked else ": the schema is up to date"
        click.echo(f"-- Nothing to do{waiting}.")
    else:
        then = "begins once nothing is in the way" if plan.lacking else "takes them"
        echo_wrapped(f"{len(plan.operations)} steps, none taken. `tmi-ops migrate` {then}.")
