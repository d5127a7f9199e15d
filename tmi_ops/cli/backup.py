"""`tmi-ops backup ...` and `tmi-ops backups`."""

from __future__ import annotations

import click
from rich.table import Table

from tmi_ops.backup.dump import LOGICAL_FORMATS, LogicalFormat
from tmi_ops.cli.environment import open_environment, reporting
from tmi_ops.cli.recovery import show_proof
from tmi_ops.cli.terminal import age_words, out, size_words, time_words
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import Manifest


@click.group()
def backup() -> None:
    """Take a backup into the store."""


@backup.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice(LOGICAL_FORMATS),
    default="custom",
    show_default=True,
    help="custom: one archive, streamed. directory: parallel, needs local disk. plain: SQL. schema-only: no rows.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=None, help="Workers of the directory format.")
@click.option("--verify", "and_verify", is_flag=True, help="Prove the backup right away by restoring it.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def logical(format_: LogicalFormat, jobs: int | None, and_verify: bool, quiet: bool) -> int:
    """Take a logical backup (pg_dump) with a fingerprint from the same snapshot."""
    from tmi_ops.backup.logical import DUMP_JOBS, back_up_logical

    settings, store = open_environment()
    with reporting(quiet) as report:
        manifest = back_up_logical(settings, store, format_, report, jobs=jobs or DUMP_JOBS)
    _show_backup(manifest)
    if not and_verify:
        out.print(f"Not proven yet. Next: [bold]tmi-ops verify {manifest.backup_id}[/]")
        return 0
    from tmi_ops.recovery.verify import verify_backup

    with reporting(quiet) as report:
        proof = verify_backup(settings, store, manifest, report)
    return show_proof(proof)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def backups(as_json: bool) -> int:
    """List the backups of this environment, newest first, with the verdicts recorded beside them."""
    from tmi_ops.store.catalogue import list_backups

    settings, store = open_environment()
    entries = list_backups(store)
    if as_json:
        import json

        click.echo(json.dumps([_entry_facts(entry) for entry in entries], indent=2))
        return 0
    if not entries:
        out.print(f"No backups of {settings.environment} in {settings.store.describe()}.")
        out.print("Next: [bold]tmi-ops backup logical --verify[/]")
        return 0
    out.print(_backups_table(entries))
    return 0


def _show_backup(manifest: Manifest) -> None:
    rows = sum(fingerprint.rows for fingerprint in manifest.fingerprints.values())
    what = f"{len(manifest.fingerprints)} tables, {rows:,} rows" if manifest.fingerprints else "the schema alone"
    out.print(
        f"[green]Backed up[/] [bold]{manifest.backup_id}[/]: {manifest.database} ({what}) "
        f"as {manifest.format}, {size_words(manifest.total_size)} in {time_words(manifest.duration_seconds)}."
    )


def _entry_facts(entry: CatalogueEntry) -> dict[str, object]:
    facts = entry.manifest.model_dump(mode="json", exclude={"fingerprints", "sequences", "objects"})
    facts["total_size"] = entry.manifest.total_size
    facts["verdict"] = entry.verdict.model_dump(mode="json") if entry.verdict else None
    return facts


def _backups_table(entries: list[CatalogueEntry]) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in ("backup", "age", "database", "format", "PostgreSQL"):
        table.add_column(column)
    table.add_column("size", justify="right")
    table.add_column("took", justify="right")
    table.add_column("verdict")
    for entry in entries:
        manifest = entry.manifest
        table.add_row(
            manifest.backup_id,
            age_words(manifest.snapshot_at),
            manifest.database,
            manifest.format,
            manifest.server_version,
            size_words(manifest.total_size),
            time_words(manifest.duration_seconds),
            _verdict_words(entry),
        )
    return table


def _verdict_words(entry: CatalogueEntry) -> str:
    verdict = entry.verdict
    if verdict is None:
        return "[yellow]not proven[/]"
    if verdict.outcome == "proven":
        return f"[green]proven[/], restores in {time_words(verdict.restore_seconds)}"
    return f"[red]FAILED[/]: {verdict.reasons[0]}"
