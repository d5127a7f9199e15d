"""`tmi-ops restore-point`."""

from __future__ import annotations

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.RUNBOOK)
@click.command(name="restore-point")
@click.argument("name")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def restore_point(name: str, quiet: bool) -> int:
    """Mark this moment by NAME, and record what every table holds, so that a recovery to it can be proven to the row.

    Before a release, a migration or an import. Writers are held for a moment (under half a second), readers not at all.
    Back to it: `tmi-ops restore --to-name NAME`; for practice: `tmi-ops drill --to-name NAME`.
    """
    from tmi_ops.backup.restore_point import create_restore_point

    settings, store = open_environment(Purpose.RUNBOOK)
    with reporting(quiet) as report:
        point = create_restore_point(settings, store, name, report)
    out.print(
        f"[green]Restore point[/] [bold]{escape(name)}[/] at LSN {point.lsn}, {point.created_at:%Y-%m-%d %H:%M:%S %Z}: "
        f"{point.rows:,} rows in {len(point.fingerprints)} tables fingerprinted; writers were held for "
        f"{point.writers_held_seconds * 1000:.0f} ms."
    )
    out.print("It can be recovered to as soon as its WAL is archived (`tmi-ops wal status`).")
    return 0
