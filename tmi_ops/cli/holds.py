"""`tmi-ops hold`, `tmi-ops release` and `tmi-ops holds`."""

from __future__ import annotations

import json

import click
from rich.markup import escape

from tmi_ops.cli.environment import open_environment
from tmi_ops.cli.terminal import age_words, out


@click.command()
@click.argument("backup_id")
@click.option("--reason", required=True, help="Why it must stay; whoever wonders later reads this.")
def hold(backup_id: str, reason: str) -> int:
    """Keep the backup BACKUP_ID, and all that it builds upon, whatever the retention policy says."""
    from tmi_ops.retention.holds import hold_backup

    if not reason.strip():
        raise click.UsageError("--reason is empty: say why the backup must stay")
    _, store = open_environment()
    held = hold_backup(store, backup_id, reason)
    out.print(f"Held: {held.backup_id} ({escape(held.reason)}). It stays until `tmi-ops release {held.backup_id}`.")
    return 0


@click.command()
@click.argument("backup_id")
def release(backup_id: str) -> int:
    """Take the hold on BACKUP_ID away: the retention policy decides again."""
    from tmi_ops.retention.holds import release_backup

    _, store = open_environment()
    held = release_backup(store, backup_id)
    out.print(
        f"Released: {held.backup_id}, held since {held.since:%Y-%m-%d %H:%M} UTC ({escape(held.reason)}). "
        "What the policy makes of it: `tmi-ops prune --dry-run`."
    )
    return 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def holds(as_json: bool) -> int:
    """List the held backups, newest hold first."""
    from tmi_ops.retention.holds import list_holds

    _, store = open_environment()
    found = list_holds(store)
    if as_json:
        facts = [{"backup_id": one.backup_id, "reason": one.reason, "since": one.since.isoformat()} for one in found]
        click.echo(json.dumps(facts, indent=2))
        return 0
    if not found:
        out.print("Nothing is held.")
    for one in found:
        out.say(f"{one.backup_id}  {age_words(one.since)}: {escape(one.reason)}")
    return 0
