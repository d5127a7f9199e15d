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
from tmi_ops.cli.point_in_time import PointInTime, restore_point_in_time, tablespace_mapping
from tmi_ops.cli.terminal import age_words, out, size_words, time_words
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.recovery.restore import RestoreChoices, RestorePlan
    from tmi_ops.recovery.verify import Proof

PROOF_FAILED = 1


@logs_in_for(Purpose.RESTORER)
@click.command()
@click.argument("backup", default="latest")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable verdict.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def verify(backup: str, as_json: bool, quiet: bool) -> int:
    """Prove BACKUP (an id, a unique start of one, or `latest`) by restoring it into a scratch cluster.

    Exit code 0: proven. 1: the proof failed. 2: the proof could not be attempted.
    """
    from tmi_ops.recovery.verify import verify_backup
    from tmi_ops.store.catalogue import find_backup

    settings, store = open_environment(Purpose.RESTORER)
    manifest = find_backup(store, backup, settings.postgres.database)
    with reporting(quiet) as report:
        proof = verify_backup(settings, store, manifest, report)
    if as_json:
        click.echo(proof.verdict.model_dump_json(indent=2))
        return 0 if proof.verdict.outcome == "proven" else PROOF_FAILED
    return show_proof(proof)


@logs_in_for(Purpose.RESTORER)
@click.command()
@click.option(
    "--backup", metavar="ID", help="The backup to restore, or for a cluster to begin with. Default: the best."
)
@click.option("--into", metavar="DBNAME|DIR", help="The database to restore into; for a cluster, its data directory.")
@click.option("--replace", is_flag=True, help="If DBNAME exists: keep it under another name and take its place.")
@to_a_moment(latest=True, exclusive=True)
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="The timeline to follow. Default: the newest.")
@click.option("--cluster", metavar="SYSTEM_ID", help="Which cluster. Default: that of the newest base backup.")
@click.option(
    "--tablespace-mapping", type=tablespace_mapping, multiple=True, metavar="OLD=NEW", help="A tablespace's new place."
)
@click.option("--no-tablespaces", is_flag=True, help="Put everything into the new database's own tablespace.")
@click.option(
    "--accept-differences", is_flag=True, help="Take a copy that is not equal to its source; they are listed first."
)
@click.option(
    "--powerful-roles", is_flag=True, help="Let roles that are created be superusers and the like, as at the source."
)
@click.option(
    "--as-superuser",
    is_flag=True,
    help="Load the dump as the connecting role, though it is a superuser. Trust it first.",
)
@click.option("--pause/--promote", help="Stay at the target, read-only, or (default) come up for writing.")
@click.option(
    "--keep-settings", is_flag=True, help="Leave the source's settings as they are, archiving and standbys included."
)
@click.option("--yes", is_flag=True, help="Do not ask. For automation.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done, and stop.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
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
    plan_only: bool,
    quiet: bool,
) -> int:
    """Restore a database from a logical backup, or a whole cluster to a moment.

    A database (--into DBNAME) is restored beside what exists on the configured server and compared with the backup's
    fingerprint; only then does it take the name DBNAME. A database it replaces stays, renamed.

    A cluster (--to-time, --to-lsn, --to-name or --latest) is restored from its base backups and archived WAL into a new
    data directory DIR on this machine. No running server is touched.
    """
    target = one_target(to_time, to_lsn, to_name, latest=latest, exclusive=exclusive)
    if target is None:
        if timeline or cluster or tablespace_mapping or pause or exclusive or keep_settings:
            raise click.UsageError("a cluster needs its target: --to-time, --to-lsn, --to-name or --latest")
        if into is None:
            raise click.UsageError(
                "say what to restore: --into DBNAME for a database; --to-time, --to-lsn, --to-name or --latest for a "
                "cluster"
            )
        # What loads a dump takes a quarter of a second to import, and a cluster's recovery has no use for it.
        from tmi_ops.recovery.restore import RestoreChoices

        choices = RestoreChoices(accept_differences, not no_tablespaces, powerful_roles, as_superuser)
        return _restore_database(
            backup or "latest", into, choices, replace=replace, yes=yes, plan_only=plan_only, quiet=quiet
        )
    if no_tablespaces or accept_differences or powerful_roles or as_superuser:
        raise click.UsageError(
            "--no-tablespaces, --accept-differences, --powerful-roles and --as-superuser are for databases"
        )
    if replace:
        raise click.UsageError("--replace is for databases; a cluster is restored into an empty directory")
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
            plan_only=plan_only,
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
    plan_only: bool,
    quiet: bool,
) -> int:
    from tmi_ops.recovery.restore import execute_restore, plan_restore
    from tmi_ops.store.catalogue import find_backup

    settings, store = open_environment(Purpose.RESTORER)
    manifest = find_backup(store, backup, settings.postgres.database)
    plan = plan_restore(settings, manifest, into, replace=replace, choices=choices)
    _show_plan(plan)
    if plan_only:
        return 0
    if plan.replaces and not yes:
        click.confirm(f"Replace {plan.database} on {plan.server}?", abort=True)
    with reporting(quiet) as report:
        result = execute_restore(settings, store, plan, report)
    compared = len(result.comparison.fingerprints)
    out.print(
        f"[green]Restored[/] [bold]{result.database}[/]: {compared} tables, {result.comparison.rows:,} rows, "
        f"{'each equal to the source at the backup.' if result.comparison.equal else 'NOT equal to the source:'}"
    )
    for difference in result.comparison.differences:
        out.print(f"  - {escape(difference)}")
    if result.created_roles:
        out.print(f"Roles created (set their passwords): {', '.join(result.created_roles)}")
    if result.kept_as:
        out.print(f"The database it replaced is kept as [bold]{result.kept_as}[/].")
        out.print(f'Way back: rename the two. When it is no longer needed: DROP DATABASE "{result.kept_as}";')
    return 0


def show_proof(proof: Proof) -> int:
    """Print a verdict; returns the exit code that says it."""
    verdict = proof.verdict
    if verdict.outcome == "proven":
        out.print(
            f"[bold green]PROVEN[/] [bold]{verdict.backup_id}[/]: {verdict.tables} tables and {verdict.rows:,} rows "
            f"restored into PostgreSQL {verdict.server_version}, each table equal to its source"
            f"{', but for:' if verdict.but_for else '.'}"
        )
        for exception in verdict.but_for:
            out.print(f"  - {escape(exception)}")
    else:
        out.print(f"[bold red]FAILED[/] [bold]{verdict.backup_id}[/]: this backup cannot be relied on.")
        for reason in verdict.reasons:
            out.print(f"  - {reason}")
    table = Table(show_header=False, box=None, padding=(0, 2))
    for phase, seconds in verdict.phases.items():
        table.add_row(phase, time_words(seconds))
    table.add_row("[bold]restore time[/]", f"[bold]{time_words(verdict.restore_seconds)}[/] (fetch + restore)")
    out.print(table)
    if proof.validation is not None and not proof.validation.ok:
        errors = [finding for finding in proof.validation.findings if finding.level == "ERROR"]
        out.print(f"[yellow]The source itself lacks {len(errors)} things TMI's schema needs[/] (see tmi-ops check):")
        for finding in errors[:5]:
            out.print(f"  - {finding.message}")
    return 0 if verdict.outcome == "proven" else PROOF_FAILED


def _show_plan(plan: RestorePlan) -> None:
    manifest = plan.manifest
    out.print(
        f"Restore [bold]{manifest.backup_id}[/] of {manifest.database}, as it was {age_words(manifest.snapshot_at)} "
        f"({manifest.snapshot_at:%Y-%m-%d %H:%M:%S %Z}), {size_words(manifest.total_size)}, on {plan.server}:"
    )
    out.print(f"  1. fetch and check every object; restore into {plan.working_name}; compare every table")
    if plan.replaces:
        out.print(f"  2. end {plan.sessions} session(s) of {plan.database} and rename it to {plan.keep_as}")
        out.print(f"  3. rename {plan.working_name} to {plan.database}")
    else:
        out.print(f"  2. rename {plan.working_name} to {plan.database}")
    out.print("No other database is touched.")
