"""`tmi-ops prune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from tmi_ops.cli.environment import open_environment, reporting
from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import dry_run_option, json_option, quiet_option, yes_option
from tmi_ops.cli.terminal import format_age, format_size, out

if TYPE_CHECKING:
    from tmi_ops.retention.execution import RetentionResult
    from tmi_ops.retention.facts import VerificationState
    from tmi_ops.retention.plan import Decision, RetentionPlan
    from tmi_ops.retention.rights import KeyRight

SPARED = 1
_VERIFICATIONS: Mapping[VerificationState, str] = {
    "proven": "verified",
    "not proven": "not verified",
    "failed": "FAILED verification",
}


@click.command()
@dry_run_option
@yes_option
@json_option
@quiet_option
def prune(dry_run: bool, yes: bool, as_json: bool, quiet: bool) -> int:
    """Remove the backups and WAL that the retention policy does not keep.

    The policy is TMI_OPS_RECOVERY_WINDOW (7d) and TMI_OPS_KEEP_LAST, _DAILY, _WEEKLY, _MONTHLY and _YEARLY. Never
    removed: the newest verified backup, what a kept backup or the recovery window needs, and what is on hold or under
    Object Lock. Nothing is removed if the store could not be read completely, the clocks disagree, or the access keys
    lack a right. Does not connect to the database. --json needs --dry-run or --yes.

    Exit codes: 0 removed, or nothing to do, 1 something that the plan removes was kept, 2 error.
    """
    from tmi_ops.retention.execution import execute_retention
    from tmi_ops.retention.locking import extend_locks
    from tmi_ops.retention.planning import plan_retention
    from tmi_ops.retention.reading import read_facts
    from tmi_ops.retention.rights import read_rights, require_rights

    if as_json and not (dry_run or yes):
        raise click.UsageError("--json needs --dry-run or --yes.")
    settings, store = open_environment()
    facts = read_facts(store, to_look=dry_run, since=datetime.now(UTC) - settings.retention.window)
    now = datetime.now(UTC)
    plan = plan_retention(facts, settings.retention, now)
    rights = read_rights(store, plan, now)
    if not as_json:
        _show_plan(plan)
        _show_rights(rights)
    if not dry_run:
        require_rights(rights)
        with reporting(quiet or as_json) as report:
            extend_locks(store, facts, plan, report, now)
    if dry_run or plan.removes_nothing:
        if as_json:
            echo_json(_plan_facts(plan) | _rights_facts(rights) | {"done": None})
        elif dry_run:
            out.print("Dry run: nothing was removed.")
        return 0
    if not yes:
        click.confirm(f"Remove this from {settings.store.describe()}? This cannot be undone.", abort=True)
    with reporting(quiet or as_json) as report:
        result = execute_retention(plan, store, report)
    if as_json:
        echo_json(_plan_facts(plan) | _rights_facts(rights) | {"done": _done_facts(result)})
    else:
        _show_result(result)
    return SPARED if result.spared else 0


def _show_plan(plan: RetentionPlan) -> None:
    out.print(f"Policy: {plan.policy.describe()}.")
    for decision in plan.kept:
        out.say(f"[green]keep[/]    {_describe_backup(decision)}")
    for decision in plan.removed:
        out.say(f"[red]remove[/]  {_describe_backup(decision)}")
    for half in plan.half_made:
        out.say(
            f"[red]remove[/]  {half.backup_id}  {format_size(half.size)}: incomplete, last written "
            f"{format_age(half.touched_at)}"
        )
    for upload in plan.uploads:
        out.say(f"[red]remove[/]  the unfinished upload of {escape(upload.key)}")
    for wal in plan.wal:
        out.say(
            f"WAL of cluster {wal.system_identifier}: keep {wal.kept} files ({format_size(wal.kept_size)}): "
            f"{escape('; '.join(wal.reasons)) or 'stored within the recovery window'}. "
            f"Remove {len(wal.removed)} ({format_size(wal.removed_size)})."
        )
    if plan.removes_nothing:
        out.print(f"Nothing to remove. {format_size(plan.kept_size)} are kept.")
    else:
        out.print(f"{plan.describe()}. Frees {format_size(plan.freed)}, keeps {format_size(plan.kept_size)}.")


def _show_rights(rights: Sequence[KeyRight]) -> None:
    """Only the rights that are missing or unknown."""
    for one in rights:
        if one.may is not True:
            color = "red" if one.may is False else "yellow"
            words = one.describe()
            out.say(f"[{color}]rights[/]  {escape(f'{words[0].upper()}{words[1:]}')}.")


def _rights_facts(rights: Sequence[KeyRight]) -> dict[str, Any]:
    """`may`: null if unknown. `database_role` is null: pruning does not connect to the database."""
    keys = [{"right": one.right.value, "may": one.may, "because": one.because} for one in rights]
    return {"rights": {"store_keys": keys, "database_role": None}}


def _describe_backup(decision: Decision) -> str:
    backup = decision.backup
    return (
        f"{backup.backup_id}  {format_age(backup.taken_at)}, {format_size(backup.size)}, "
        f"{_VERIFICATIONS[backup.verification]}: {escape('; '.join(decision.reasons))}"
    )


def _show_result(result: RetentionResult) -> None:
    for spared in result.spared:
        out.say(f"[yellow]kept[/]    {escape(spared.what)}: {escape(spared.because)}")
    out.print(
        f"[green]Removed[/] {result.backups} backups, {result.wal_files} WAL files, {result.half_made} incomplete "
        f"backups and {result.uploads} unfinished uploads: {format_size(result.freed)}."
    )


def _plan_facts(plan: RetentionPlan) -> dict[str, Any]:
    def backup(decision: Decision) -> dict[str, Any]:
        one = decision.backup
        return {
            "backup_id": one.backup_id,
            "kind": one.kind,
            "taken_at": one.taken_at.isoformat(),
            "bytes": one.size,
            "proof": one.verification,
            "reasons": list(decision.reasons),
        }

    return {
        "policy": plan.policy.model_dump(mode="json"),
        "kept": [backup(decision) for decision in plan.kept],
        "removed": [backup(decision) for decision in plan.removed],
        "wal": [
            {
                "system_identifier": wal.system_identifier,
                "kept_files": wal.kept,
                "kept_bytes": wal.kept_size,
                "removed_files": len(wal.removed),
                "removed_bytes": wal.removed_size,
                "reasons": list(wal.reasons),
            }
            for wal in plan.wal
        ],
        "half_made": [half.backup_id for half in plan.half_made],
        "unfinished_uploads": len(plan.uploads),
        "kept_bytes": plan.kept_size,
        "freed_bytes": plan.freed,
    }


def _done_facts(result: RetentionResult) -> dict[str, Any]:
    return {
        "backups": result.backups,
        "wal_files": result.wal_files,
        "half_made": result.half_made,
        "unfinished_uploads": result.uploads,
        "freed_bytes": result.freed,
        "spared": [{"what": spared.what, "because": spared.because} for spared in result.spared],
    }
