"""`tmi-ops verify` and `tmi-ops restore`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.moments import one_target, to_a_moment
from tmi_ops.cli.options import backup_option, cluster_option, dry_run_option, json_option, quiet_option, yes_option
from tmi_ops.cli.point_in_time import PointInTime, restore_point_in_time, tablespace_mapping
from tmi_ops.cli.terminal import format_age, format_duration, format_size, out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.recovery.restore import RestoreChoices, RestorePlan
    from tmi_ops.recovery.verify import VerifyResult

VERIFICATION_FAILED = 1


@logs_in_for(Purpose.RESTORER)
@click.command()
@click.argument("backup", default="latest")
@json_option
@quiet_option
def verify(backup: str, as_json: bool, quiet: bool) -> int:
    """Verify BACKUP by restoring it into a scratch cluster.

    BACKUP is an id, a unique start of one, or `latest` (the default).

    Exit codes: 0 verified, 1 verification failed, 2 verification could not be done.
    """
    from tmi_ops.recovery.verify import verify_backup
    from tmi_ops.store.catalogue import find_backup

    settings, store = open_environment(Purpose.RESTORER)
    manifest = find_backup(store, backup, settings.postgres.database)
    with reporting(quiet) as report:
        result = verify_backup(settings, store, manifest, report)
    if as_json:
        click.echo(result.verification.model_dump_json(indent=2))
        return 0 if result.verification.passed else VERIFICATION_FAILED
    return show_result(result)


@logs_in_for(Purpose.RESTORER)
@click.command()
@backup_option
@click.option("--into", metavar="DBNAME|DIR", help="Database to restore into, or data directory for a cluster.")
@click.option("--replace", is_flag=True, help="If DBNAME exists, rename it and take its place.")
@to_a_moment(latest=True, exclusive=True)
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="Timeline to follow. Default: the newest.")
@cluster_option()
@click.option(
    "--tablespace-mapping",
    type=tablespace_mapping,
    multiple=True,
    metavar="OLD=NEW",
    help="Restore the tablespace in directory OLD to NEW; repeatable.",
)
@click.option("--no-tablespaces", is_flag=True, help="Restore everything into the new database's default tablespace.")
@click.option(
    "--accept-differences",
    is_flag=True,
    help="Accept a copy that differs from its source; differences are listed first.",
)
@click.option(
    "--powerful-roles",
    is_flag=True,
    help="Create missing roles with superuser and similar attributes, as at the source.",
)
@click.option(
    "--as-superuser",
    is_flag=True,
    help="Load the dump as the connecting role even if it is a superuser. Only for dumps that you trust.",
)
@click.option("--pause/--promote", help="Stay at the target, read-only, or (default) promote and accept writes.")
@click.option(
    "--keep-settings", is_flag=True, help="Keep the source's settings, including those for archiving and standbys."
)
@yes_option
@dry_run_option
@quiet_option
def restore(
    backup: str | None,
    into: str | None,
    replace: bool,
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    latest: bool,
    exclusive: bool,
    timeline: int | None,
    cluster: str | None,
    tablespace_mapping: tuple[tuple[str, Path], ...],
    no_tablespaces: bool,
    accept_differences: bool,
    powerful_roles: bool,
    as_superuser: bool,
    pause: bool,
    keep_settings: bool,
    yes: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Restore a database from a logical backup, or a whole cluster to a point in time.

    A database (--into DBNAME) is restored on the configured server under a temporary name and compared with the
    backup; only then is it renamed to DBNAME. With --replace the existing database is kept under another name.

    A cluster (--to-time, --to-lsn, --to-name or --latest) is restored from a base backup and archived WAL into a new
    data directory DIR on this machine. No running server is touched.
    """
    target = one_target(to_time, to_lsn, to_name, latest=latest, exclusive=exclusive)
    if target is None:
        if timeline or cluster or tablespace_mapping or pause or exclusive or keep_settings:
            raise click.UsageError("A cluster needs a target: --to-time, --to-lsn, --to-name or --latest.")
        if into is None:
            raise click.UsageError(
                "Nothing to restore was named: give --into DBNAME for a database; --to-time, --to-lsn, --to-name or "
                "--latest for a cluster."
            )
        # Imported late: it takes a quarter of a second, and a cluster's recovery does not need it.
        from tmi_ops.recovery.restore import RestoreChoices

        choices = RestoreChoices(accept_differences, not no_tablespaces, powerful_roles, as_superuser)
        return _restore_database(
            backup or "latest", into, choices, replace=replace, yes=yes, dry_run=dry_run, quiet=quiet
        )
    if no_tablespaces or accept_differences or powerful_roles or as_superuser:
        raise click.UsageError(
            "--no-tablespaces, --accept-differences, --powerful-roles and --as-superuser are for databases, not for "
            "clusters."
        )
    if replace:
        raise click.UsageError("--replace is for databases; a cluster is restored into an empty directory.")
    return restore_point_in_time(
        PointInTime(
            target=target,
            into=Path(into).absolute() if into else None,
            tablespaces=dict(tablespace_mapping),
            backup=backup,
            timeline=timeline,
            cluster=cluster,
            pause=pause,
            keep_settings=keep_settings,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def _restore_database(
    backup: str,
    into: str,
    choices: RestoreChoices,
    *,
    replace: bool,
    yes: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    from tmi_ops.recovery.restore import execute_restore, plan_restore
    from tmi_ops.store.catalogue import find_backup

    settings, store = open_environment(Purpose.RESTORER)
    manifest = find_backup(store, backup, settings.postgres.database)
    plan = plan_restore(settings, manifest, into, replace=replace, choices=choices)
    _show_plan(plan)
    if dry_run:
        return 0
    if plan.replaces and not yes:
        click.confirm(f"Replace {plan.database} on {plan.server}?", abort=True)
    with reporting(quiet) as report:
        result = execute_restore(settings, store, plan, report)
    compared = len(result.comparison.fingerprints)
    out.print(
        f"[green]Restored[/] [bold]{result.database}[/]: {compared} tables, {result.comparison.rows:,} rows, "
        f"{'all equal to the source.' if result.comparison.equal else 'NOT equal to the source:'}"
    )
    for difference in result.comparison.differences:
        out.print(f"  - {escape(difference)}")
    if result.created_roles:
        out.print(f"Roles created (set their passwords): {', '.join(result.created_roles)}")
    if result.kept_as:
        out.print(f"The replaced database is kept as [bold]{result.kept_as}[/].")
        out.print(f'To undo: rename both. When you no longer need it: DROP DATABASE "{result.kept_as}";')
    return 0


def show_result(result: VerifyResult) -> int:
    """Print the result of a verification. Returns the exit code."""
    verification = result.verification
    if verification.passed:
        out.print(
            f"[bold green]VERIFIED[/] [bold]{verification.backup_id}[/]: {verification.tables} tables and "
            f"{verification.rows:,} rows restored into PostgreSQL {verification.server_version}, each table equal to "
            f"its source{', except:' if verification.but_for else '.'}"
        )
        for exception in verification.but_for:
            out.print(f"  - {escape(exception)}")
    else:
        out.print(f"[bold red]FAILED[/] [bold]{verification.backup_id}[/]: do not rely on this backup.")
        for reason in verification.reasons:
            out.print(f"  - {reason}")
    table = Table(show_header=False, box=None, padding=(0, 2))
    for phase, seconds in verification.phases.items():
        table.add_row(phase, format_duration(seconds))
    table.add_row(
        "[bold]restore time[/]", f"[bold]{format_duration(verification.restore_seconds)}[/] (fetch + restore)"
    )
    out.print(table)
    if result.validation is not None and not result.validation.ok:
        errors = [finding for finding in result.validation.findings if finding.level == "ERROR"]
        out.print(f"[yellow]The source's schema has {len(errors)} errors[/] (see `tmi-ops check`):")
        for finding in errors[:5]:
            out.print(f"  - {finding.message}")
    return 0 if verification.passed else VERIFICATION_FAILED


def _show_plan(plan: RestorePlan) -> None:
    manifest = plan.manifest
    out.print(
        f"Restore [bold]{manifest.backup_id}[/] of {manifest.database}, taken {format_age(manifest.snapshot_at)} "
        f"({manifest.snapshot_at:%Y-%m-%d %H:%M:%S %Z}), {format_size(manifest.total_size)}, on {plan.server}:"
    )
    out.print(f"  1. fetch and check every object, restore into {plan.working_name}, compare every table")
    if plan.replaces:
        out.print(f"  2. end {plan.sessions} session(s) of {plan.database} and rename it to {plan.keep_as}")
        out.print(f"  3. rename {plan.working_name} to {plan.database}")
    else:
        out.print(f"  2. rename {plan.working_name} to {plan.database}")
    out.print("No other database is touched.")
