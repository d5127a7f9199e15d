"""`tmi-ops restore-point`."""

from __future__ import annotations

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import quiet_option
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.RUNBOOK)
@click.command(name="restore-point")
@click.argument("name")
@quiet_option
def restore_point(name: str, quiet: bool) -> int:
    """Create the restore point NAME and record the content of every table.

    A recovery to it can then be verified row by row. Use it before a release, a migration or an import. Writers wait
    for less than half a second, readers do not wait. To recover to it: `tmi-ops restore --to-name NAME`; to practise:
    `tmi-ops drill --to-name NAME`.
    """
    from tmi_ops.backup.restore_point import create_restore_point

    settings, store = open_environment(Purpose.RUNBOOK)
    with reporting(quiet) as report:
        point = create_restore_point(settings, store, name, report)
    out.print(
        f"[green]Restore point[/] [bold]{escape(name)}[/] at LSN {point.lsn}, {point.created_at:%Y-%m-%d %H:%M:%S %Z}: "
        f"{point.rows:,} rows in {len(point.fingerprints)} tables recorded; writers waited for "
        f"{point.writers_held_seconds * 1000:.0f} ms."
    )
    out.print("You can recover to it once its WAL is archived (`tmi-ops wal status`).")
    return 0
