"""`tmi-ops backup ...` and `tmi-ops backups`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from tmi_ops.alerts.dead_man import ping_heartbeat
from tmi_ops.backup.dump import LOGICAL_FORMATS, LogicalFormat
from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import json_option, quiet_option
from tmi_ops.cli.recovery import show_result
from tmi_ops.cli.terminal import err, format_age, format_duration, format_size, in_columns, out
from tmi_ops.errors import StoreError
from tmi_ops.settings import Purpose
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import AnyManifest, BaseManifest, Manifest
from tmi_ops.text import printable

BROKEN = 1
RATE_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9}


def rate(words: str) -> int:
    """Bytes per second from words such as `50MB`; powers of 1000, as sizes are shown."""
    match = re.fullmatch(r"(\d+)\s*(kB|MB|GB)", words.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{words!r} is not a rate such as 500kB, 50MB or 1GB (per second)")
    return int(match[1]) * RATE_UNITS[match[2].lower()]


@click.group()
def backup() -> None:
    """Take a base or logical backup."""


@logs_in_for(Purpose.BACKUP)
@backup.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice(LOGICAL_FORMATS),
    default="custom",
    show_default=True,
    help="custom: one streamed archive. directory: dumped in parallel, needs local disk. plain: SQL. schema-only: no "
    "rows.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=None, help="Parallel workers of the directory format.")
@click.option("--verify", "and_verify", is_flag=True, help="Verify the backup right after by restoring it.")
@quiet_option
def logical(format_: LogicalFormat, jobs: int | None, and_verify: bool, quiet: bool) -> int:
    """Take a logical backup (pg_dump) and record the rows, bytes and SHA-256 of each table."""
    from tmi_ops.backup.logical import DUMP_JOBS, back_up_logical

    settings, store = open_environment(Purpose.BACKUP)
    with reporting(quiet) as report:
        manifest = back_up_logical(settings, store, format_, report, jobs=jobs or DUMP_JOBS)
    _show_backup(manifest)
    ping_heartbeat(settings, f"{settings.name}: logical backup {manifest.backup_id} was committed")
    if not and_verify:
        out.print(f"Not verified yet. Next: [bold]tmi-ops verify {manifest.backup_id}[/]")
        return 0
    from tmi_ops.recovery.verify import verify_backup

    with reporting(quiet) as report:
        result = verify_backup(settings, store, manifest, report)
    return show_result(result)


@logs_in_for(Purpose.BACKUP)
@backup.command()
@click.option(
    "--incremental",
    is_flag=True,
    help="Back up only what changed since the newest base backup (PostgreSQL 17 or later).",
)
@click.option("--max-rate", type=rate, metavar="RATE", help="Maximum transfer rate per second, such as 50MB.")
@click.option(
    "--longest-chain",
    type=click.IntRange(1, 100),
    default=None,
    help="Maximum number of backups in a chain, including the full one; the one after it is full. Default: 6.",
)
@click.option(
    "--spread-checkpoint", is_flag=True, help="Spread the first checkpoint over minutes; avoids a burst of writes."
)
@quiet_option
def base(
    incremental: bool, max_rate: int | None, longest_chain: int | None, spread_checkpoint: bool, quiet: bool
) -> int:
    """Take a base backup: the files of the whole cluster. Point-in-time recovery starts from one."""
    from tmi_ops.backup.base import back_up_base
    from tmi_ops.backup.chain import LONGEST_CHAIN

    settings, store = open_environment(Purpose.BACKUP)
    with reporting(quiet) as report:
        manifest = back_up_base(
            settings,
            store,
            report,
            incremental=incremental,
            max_rate=max_rate,
            longest_chain=longest_chain or LONGEST_CHAIN,
            fast_checkpoint=not spread_checkpoint,
        )
    _show_base(manifest)
    ping_heartbeat(settings, f"{settings.environment}: base backup {manifest.backup_id} was committed")
    return 0


@click.command()
@json_option
def backups(as_json: bool) -> int:
    """List the backups of this environment, newest first, and whether each is verified.

    Exit codes: 0 all listed, 1 some manifests or verification results cannot be read (the others are listed), 2 error.
    """
    from tmi_ops.store.catalogue import list_backups

    settings, store = open_environment(Purpose.BACKUP)
    broken: list[StoreError] = []
    entries = list_backups(store, broken.append)
    if as_json:
        import json

        click.echo(json.dumps([_entry_facts(entry) for entry in entries], indent=2))
        return _show_broken(broken)
    if not entries and not broken:
        out.print(f"No backups of {settings.name} in {settings.store.describe()}.")
        out.print("Next: [bold]tmi-ops backup logical --verify[/]")
        return 0
    out.print(_backups_table(entries))
    if not store.trust.is_pinned:
        out.print("[dim]Signatures are not checked: no trusted keys are set here (`tmi-ops keys show`).[/]")
    return _show_broken(broken)


def _show_broken(broken: Sequence[StoreError]) -> int:
    """Print what could not be read to stderr. Returns the exit code."""
    for error in broken:
        err.say(f"[red]✗[/] {escape(error.message)} {escape(error.hint)}".rstrip(), hang=2)
    return BROKEN if broken else 0


def _show_backup(manifest: Manifest) -> None:
    rows = sum(fingerprint.rows for fingerprint in manifest.fingerprints.values())
    what = f"{len(manifest.fingerprints)} tables, {rows:,} rows" if manifest.fingerprints else "schema only"
    out.print(
        f"[green]Backed up[/] [bold]{manifest.backup_id}[/]: {manifest.database} ({what}) "
        f"as {manifest.format}, {format_size(manifest.total_size)} in {format_duration(manifest.duration_seconds)}."
    )
    for sentence in manifest.left_behind:
        out.print(f"[yellow]Not in this backup:[/] {escape(sentence)}")


def _show_base(manifest: BaseManifest) -> None:
    out.print(
        f"[green]Backed up[/] [bold]{manifest.backup_id}[/]: the whole cluster of {manifest.role} "
        f"({format_size(manifest.cluster_size)}), {_base_format(manifest)}, {format_size(manifest.total_size)} in "
        f"{format_duration(manifest.duration_seconds)}."
    )
    if manifest.full_because:
        out.print(f"[yellow]A full backup instead of an incremental one:[/] {manifest.full_because}.")
    out.print(
        f"It contains WAL {manifest.start_lsn} to {manifest.stop_lsn} on timeline {manifest.timeline}. It restores to "
        f"{manifest.consistent_at:%Y-%m-%d %H:%M:%S %Z} on its own, and to any later moment with archived WAL."
    )


def _base_format(manifest: BaseManifest) -> str:
    if manifest.format == "full":
        return "full"
    return f"incremental on {manifest.parent} ({len(manifest.chain) + 1} in the chain)"


def _entry_facts(entry: CatalogueEntry) -> dict[str, object]:
    facts = entry.manifest.model_dump(mode="json", exclude={"fingerprints", "sequences", "objects"})
    facts["total_size"] = entry.manifest.total_size
    facts["verdict"] = entry.verification.model_dump(mode="json") if entry.verification else None
    return facts


_WIDE = 110
_GAP = 2
WHOLE_CLUSTER = "whole cluster"


def _backups_table(entries: list[CatalogueEntry]) -> Text:
    """A line for each backup. A wide terminal shows more columns, and reasons in full; a narrow one shows the database
    instead of the format if there are several databases.

    It is not one of Rich's tables, which takes a fifth of a millisecond for each line of a long list.
    """
    wide = out.width >= _WIDE
    several = len({_subject(entry.manifest) for entry in entries} - {WHOLE_CLUSTER}) > 1
    columns = ("format", "of", "PostgreSQL", "took") if wide else ("of",) if several else ("format",)
    rows = [("backup", "age", "size", *columns), *(_backup_row(entry, columns, wide=wide) for entry in entries)]
    names, *lines = in_columns(rows, right={2})
    # Where there is no room for both, the answer is cut, never an id or a name: ids are copied into the next command.
    indent = cell_len(names) + _GAP
    left = max(len("verified"), out.width - indent)
    table = Text(no_wrap=True).append(f"{names}{' ' * _GAP}verified", "bold")
    for entry, line in zip(entries, lines, strict=True):
        answer = Text.from_markup(_describe_verification(entry))
        first, *others = _fitted(answer, left, wide=wide)
        table.append(f"\n{line}{' ' * _GAP}").append_text(first)
        for more in others:
            table.append("\n").append(" " * indent).append_text(more)
    return table


def _fitted(answer: Text, width: int, *, wide: bool) -> Sequence[Text]:
    """Its lines."""
    if answer.cell_len <= width:
        return [answer]
    if wide:
        return list(answer.wrap(out, width))
    answer.truncate(width, overflow="ellipsis")
    return [answer]


def _backup_row(entry: CatalogueEntry, columns: Sequence[str], *, wide: bool) -> tuple[str, ...]:
    manifest = entry.manifest
    shown = {
        "format": manifest.format,
        "of": _subject(manifest),
        "PostgreSQL": manifest.server_version,
        "took": format_duration(manifest.duration_seconds),
    }
    age = format_age(manifest.taken_at).removesuffix("" if wide else " ago")
    return manifest.backup_id, age, format_size(manifest.total_size), *(shown[column] for column in columns)


def _subject(manifest: AnyManifest) -> str:
    return WHOLE_CLUSTER if isinstance(manifest, BaseManifest) else manifest.database


def _describe_verification(entry: CatalogueEntry) -> str:
    verification = entry.verification
    if verification is None:
        return "[yellow]no[/]"
    if verification.passed:
        if verification.but_for:
            return f"[green]yes[/], except {len(verification.but_for)}"
        return f"[green]yes[/], in {format_duration(verification.restore_seconds)}"
    reason = next(iter(verification.reasons), "no reason is recorded").replace("\n", " ")
    return f"[red]FAILED[/]: {escape(printable(reason))}"
