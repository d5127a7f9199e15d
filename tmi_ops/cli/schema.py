"""`tmi-ops migrate` and `tmi-ops check`: migrate and validate the schema TMI needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import dry_run_option, json_option, verbose_option
from tmi_ops.cli.wrapping import echo_wrapped
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.schema.locking import Observed
    from tmi_ops.schema.operations import MigrationPlan
    from tmi_ops.schema.validation import Validation
    from tmi_ops.settings import Settings

FINDINGS, IN_THE_WAY = 1, 2


@logs_in_for(Purpose.OWNER)
@click.command()
@dry_run_option
@click.option("--validate", "only_validate", is_flag=True, help="Only validate, as `tmi-ops check` does.")
@click.option("--no-seed", is_flag=True, help="Do not insert the rows that TMI needs before its first request.")
@verbose_option("DEBUG findings")
def migrate(dry_run: bool, only_validate: bool, no_seed: bool, verbose: bool) -> int:
    """Migrate the database's schema, online.

    Creates the database if it is missing, adds what the schema lacks, inserts the rows TMI needs and validates the
    result. Never drops or narrows anything, and blocks reads and writes for milliseconds only. Running it again does
    nothing. --dry-run prints the SQL and the locks that each step takes.

    Exit codes: 0 migrated and valid, 1 migrated but validation found an ERROR, 2 error.
    """
    from tmi_ops.cli.schema_view import show_result, show_validation
    from tmi_ops.cli.terminal import TerminalReport
    from tmi_ops.schema import migration
    from tmi_ops.schema.locking import Observed
    from tmi_ops.settings import load_settings

    if dry_run and only_validate:
        raise click.UsageError("--dry-run and --validate exclude each other.")
    settings = load_settings(purpose=Purpose.OWNER)
    _require_models(settings)
    postgres = settings.postgres
    if dry_run:
        plan = migration.plan_migration(postgres, seed=not no_seed)
        _show_plan(plan)
        return IN_THE_WAY if plan.lacking else 0
    if only_validate:
        observed = _observe(settings)
        show_validation(observed.found, verbose=verbose)
        return _record(settings, observed)
    with TerminalReport().running() as report:
        result = migration.migrate(postgres, report, seed=not no_seed)
    show_result(result)
    show_validation(result.validation, verbose=verbose, after_migration=True)
    return _record(settings, Observed(result.validation, during_migration=False))


@logs_in_for(Purpose.OWNER)
@click.command()
@json_option
@verbose_option("DEBUG findings: what matches")
def check(as_json: bool, verbose: bool) -> int:
    """Compare the database with the schema TMI needs. Changes nothing.

    Shows the connection, every table with its number of rows, and the differences; `tmi-ops status` shows them later,
    too. ERROR: TMI fails, or data violates its declaration. WARN: something is not enforced, is slow, or is unknown to
    TMI's models. --json includes the DEBUG findings.

    Exit codes: 0 no ERROR, 1 at least one ERROR, 2 could not check.
    """
    from tmi_ops.cli.checks_view import finding_facts
    from tmi_ops.cli.schema_view import show_validation
    from tmi_ops.settings import load_settings

    settings = load_settings(purpose=Purpose.OWNER)
    _require_models(settings)
    observed = _observe(settings)
    validation = observed.found
    if as_json:
        found = [{**finding_facts(one.finding), **one.model_dump(mode="json")} for one in validation.findings]
        echo_json(
            validation.model_dump(mode="json") | {"findings": found, "during_migration": observed.during_migration}
        )
    else:
        show_validation(validation, verbose=verbose)
    return _record(settings, observed)


def _observe(settings: Settings) -> Observed[Validation]:
    """Validate the schema; a migration that is running is said at once, so that nobody acts on half of a change."""
    from tmi_ops.cli.terminal import err
    from tmi_ops.schema.locking import observe
    from tmi_ops.schema.validation import validate_schema

    observed = observe(settings.postgres, lambda: validate_schema(settings.postgres))
    if observed.during_migration:
        err.say(
            "[yellow]⚠[/] a migration is changing this schema: differences may be steps that it has not yet taken, and "
            "`tmi-ops status` keeps the result from before. Repeat this when it has ended.",
            hang=2,
        )
    return observed


def _require_models(settings: Settings) -> None:
    """Raises SettingsError: the profile declares no schema."""
    from tmi_ops.error_codes import Code
    from tmi_ops.errors import SettingsError

    if not settings.profile.has_models:
        raise SettingsError(
            f"The profile {settings.profile.name} declares no schema, so there is nothing to migrate or compare.",
            hint="let the application migrate its schema; for TMI's database unset TMI_OPS_PROFILE",
            code=Code.NOT_IN_PROFILE,
        )


def _record(settings: Settings, observed: Observed[Validation]) -> int:
    """Keep the findings for `tmi-ops status`, unless a migration was running. Returns the exit code.

    After they were shown, because an unreachable store takes its time to fail.
    """
    from tmi_ops.health.record import record_schema
    from tmi_ops.settings import read_variables

    if not observed.during_migration:
        record_schema(settings, read_variables(), observed.found.findings)
    return 0 if observed.found.ok else FINDINGS


def _show_plan(plan: MigrationPlan) -> None:
    """Print the script alone to stdout, so that it can be saved or piped to psql."""
    from tmi_ops.cli.checks_view import show_comment
    from tmi_ops.cli.schema_view import blocked_lines
    from tmi_ops.schema.rendering import script

    for line in script(plan).splitlines():
        show_comment(line.removeprefix("-- ")) if line.startswith("-- ") else click.echo(line)
    for line in blocked_lines(plan.blocked):
        show_comment(line, "")
    if plan.blocked:
        click.echo()
    for one in plan.lacking:
        show_comment(f"Blocked: {one.table}: {one.reason} Next: {one.remedy}", "red")
    if plan.empty:
        waiting = "; the above is left to you" if plan.blocked else ": the schema is up to date"
        click.echo(f"-- Nothing to do{waiting}.")
    else:
        then = "refuses to start until the above is resolved" if plan.lacking else "runs them"
        echo_wrapped(f"{len(plan.operations)} steps; nothing was changed. `tmi-ops migrate` {then}.")
