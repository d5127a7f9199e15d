"""`tmi-ops hold`, `tmi-ops release` and `tmi-ops holds`."""

from __future__ import annotations

import json

import click
from rich.markup import escape

from tmi_ops.cli.environment import open_environment
from tmi_ops.cli.options import json_option
from tmi_ops.cli.terminal import format_age, out


@click.command()
@click.argument("backup_id")
@click.option("--reason", required=True, help="Why the backup must be kept; `tmi-ops holds` shows it.")
def hold(backup_id: str, reason: str) -> int:
    """Keep the backup BACKUP_ID, and every backup it depends on, whatever the retention policy says."""
    from tmi_ops.retention.holds import hold_backup

    if not reason.strip():
        raise click.UsageError("--reason is empty: say why the backup must be kept.")
    _, store = open_environment()
    held = hold_backup(store, backup_id, reason)
    out.print(f"On hold: {held.backup_id} ({escape(held.reason)}), until `tmi-ops release {held.backup_id}`.")
    return 0


@click.command()
@click.argument("backup_id")
def release(backup_id: str) -> int:
    """Remove the hold on the backup BACKUP_ID; the retention policy applies again."""
    from tmi_ops.retention.holds import release_backup

    _, store = open_environment()
    held = release_backup(store, backup_id)
    out.print(
        f"Released: {held.backup_id}, on hold since {held.since:%Y-%m-%d %H:%M} UTC ({escape(held.reason)}). "
        "Whether the policy keeps it: `tmi-ops prune --dry-run`."
    )
    return 0


@click.command()
@json_option
def holds(as_json: bool) -> int:
    """List the backups on hold, newest hold first."""
    from tmi_ops.retention.holds import list_holds

    _, store = open_environment()
    found = list_holds(store)
    if as_json:
        facts = [{"backup_id": one.backup_id, "reason": one.reason, "since": one.since.isoformat()} for one in found]
        click.echo(json.dumps(facts, indent=2))
        return 0
    if not found:
        out.print("No backup is on hold.")
    for one in found:
        out.say(f"{one.backup_id}  {format_age(one.since)}: {escape(one.reason)}")
    return 0
