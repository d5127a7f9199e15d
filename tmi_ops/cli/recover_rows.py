"""`tmi-ops recover rows`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import cache_option, dry_run_option, json_option, quiet_option, rows_option, yes_option
from tmi_ops.cli.recover_view import run_plan
from tmi_ops.cli.rescue_options import moment_of, of_a_past, opened
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose, environment_name, profile_of

if TYPE_CHECKING:
    from tmi_ops.rescue.columns.planning import ColumnsPlan
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.selection import Policy, Selection, TableRows
    from tmi_ops.rescue.session import Sides

UNSOLVED, COULD_NOT = 1, 2
_CLEAR_AWAY = "[red]Nothing was changed.[/] Resolve the problems above, then run the same command again."
POLICIES: tuple[Policy, ...] = ("stop", "keep-current", "take-past", "skip")


@logs_in_for(Purpose.RUNBOOK)
@click.command()
@of_a_past
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="Restore rows of this table, by default all; repeatable."
)
@click.option("--where", metavar="SQL", help="Only rows of that table that met this condition at that moment.")
@click.option(
    "--key", "keys", multiple=True, metavar="VALUE", help="Only the row with this primary key; repeat per key column."
)
@click.option("--threat-model", metavar="ID", help="One threat model, with all its dependent rows.")
@click.option(
    "--root",
    metavar="NAME=KEY",
    help="One row of a root of your profile, by its key, with all its dependent rows.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="Restore this dropped column, with its values in rows that still exist; repeatable. With --where, --key, "
    "--threat-model or --root, only those rows get values.",
)
@click.option(
    "--set-column",
    "set_columns",
    multiple=True,
    metavar="NAME",
    help="Restore only this column's values, in rows that still exist; other columns do not change. Repeatable.",
)
@click.option(
    "--conflicts",
    type=click.Choice(POLICIES),
    default="stop",
    show_default=True,
    help="What to do with a row that exists with other content or cannot be restored.",
)
@click.option(
    "--only", is_flag=True, help="Do not restore dependent rows; rows that these rows reference are still restored."
)
@click.option("--accept-triggers", is_flag=True, help="Accept changes that the database's triggers make to the rows.")
@cache_option
@dry_run_option
@rows_option(10)
@json_option
@yes_option
@quiet_option
def rows(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    exclusive: bool,
    travel: bool,
    shadow: bool,
    backup: str | None,
    tables: tuple[str, ...],
    where: str | None,
    keys: tuple[str, ...],
    threat_model: str | None,
    root: str | None,
    columns: tuple[str, ...],
    set_columns: tuple[str, ...],
    conflicts: Policy,
    only: bool,
    accept_triggers: bool,
    cache: bool,
    dry_run: bool,
    rows: int,
    as_json: bool,
    yes: bool,
    quiet: bool,
) -> int:
    """Restore deleted or changed rows, a dropped table, or a dropped column.

    The past is restored on this machine, next to the live database. Rows are restored with their dependent rows and the
    rows they reference, in one transaction that is compared with the past before the commit. No row is deleted and no
    trigger is disabled; the application can keep running. A column is restored with its values, default, constraints,
    indexes and grants; the application waits while it is filled. Afterwards, stale copies are dropped from the cache.

    Each step is recorded; after a crash, continue with `tmi-ops recover resume`.

    Exit codes: 0 done, or nothing to do; 1 unresolved conflicts; 2 failed. With 1 and 2, nothing was changed.
    """
    from tmi_ops.runbooks.rows.actions import Opened, actions
    from tmi_ops.runbooks.rows.planning import runbook_of

    if as_json and not dry_run:
        raise click.UsageError("--json needs --dry-run")
    whole = _whole(root, threat_model)
    selection = _selection(tables, where, keys, whole, columns, conflicts, only=only, accept=accept_triggers)
    if set_columns:
        selection = _values_only(selection, set_columns)
    wanted = moment_of(to_time, to_lsn, to_name, exclusive=exclusive, backup=backup, travel=travel, shadow=shadow)
    settings, store = open_environment(Purpose.RUNBOOK)
    with opened(settings, store, wanted, quiet=quiet) as (sides, past):
        with reporting(quiet) as report:
            ready = Opened.of(sides, selection, past, report)
        sides, plan = ready.sides, ready.plan
        if as_json:
            return _print_json(sides, plan)
        if not _is_to_be_done(sides, plan, rows, dry_run=dry_run):
            return _undone(plan)
        runbook = runbook_of(settings, wanted, plan, with_cache=cache)
        return run_plan(
            settings,
            store,
            runbook,
            yes=yes,
            dry_run=False,
            quiet=quiet,
            actions=actions(ready),
        )


def _selection(
    tables: tuple[str, ...],
    where: str | None,
    keys: tuple[str, ...],
    whole: TableRows | None,
    columns: tuple[str, ...],
    policy: Policy,
    *,
    only: bool,
    accept: bool,
) -> Selection:
    from tmi_ops.rescue.selection import Selection, TableColumn, TableRows

    if columns and len(tables) != 1:
        raise click.UsageError("--column needs exactly one --table, the one that lost the column")
    if not columns and bool(tables) == bool(whole):
        raise click.UsageError("say what to restore: --table, --threat-model or --root")
    narrowed = sum(map(bool, (where, keys, columns and whole)))
    if narrowed > 1 or (narrowed and len(tables) != 1):
        raise click.UsageError("select rows with either --where or --key, and one --table")
    chosen = (whole,) if whole else tuple(TableRows(table, where, keys or None) for table in tables)
    if columns and not narrowed:
        chosen = ()
    wanted = tuple(TableColumn(tables[0], column) for column in dict.fromkeys(columns))
    return Selection(chosen, wanted, with_children=not only, policy=policy, accept_triggers=accept)


def _whole(root: str | None, threat_model: str | None) -> TableRows | None:
    """The row of a root of the environment's profile."""
    from tmi_ops.rescue.selection import named_root, root_rows

    wanted = named_root(root) if root else ("threat-model", threat_model) if threat_model else None
    return root_rows(profile_of(environment_name()), *wanted) if wanted else None


def _values_only(selection: Selection, columns: tuple[str, ...]) -> Selection:
    from tmi_ops.rescue.selection import SetColumns

    if selection.columns or len(selection.rows) != 1:
        raise click.UsageError("--set-column needs exactly one --table, and cannot be used with --column")
    (rows,) = selection.rows
    return replace(selection, values=SetColumns(rows.table, tuple(dict.fromkeys(columns))))


def _undone(plan: RescuePlan | ColumnsPlan) -> int:
    """The exit code if only the plan was shown."""
    from tmi_ops.rescue.planning import RescuePlan

    if plan.barriers:
        return COULD_NOT
    return UNSOLVED if isinstance(plan, RescuePlan) and plan.unsolved else 0


def _is_to_be_done(sides: Sides, plan: RescuePlan | ColumnsPlan, shown: int, *, dry_run: bool) -> bool:
    """Show the plan, and say why it is not executed if it is not."""
    from tmi_ops.cli.rescue_view import show_columns_plan, show_plan
    from tmi_ops.rescue.columns.planning import ColumnsPlan, planned_values

    if isinstance(plan, ColumnsPlan):
        show_columns_plan(plan, planned_values(sides, plan, shown), notes=dry_run or bool(plan.barriers))
        if plan.barriers:
            out.print(_CLEAR_AWAY)
        elif dry_run:
            out.print("Nothing was changed.")
        return not (plan.barriers or dry_run)
    show_plan(plan, notes=dry_run or bool(plan.unsolved) or not plan.rows)
    _show_rows(sides, plan, shown)
    if plan.barriers and plan.rows:
        out.print(_CLEAR_AWAY)
        return False
    if plan.unsolved:
        out.print(
            "[red]Nothing was changed.[/] Choose how to resolve the conflicts: --conflicts keep-current, take-past or "
            "skip."
        )
        return False
    if dry_run or not plan.rows:
        out.print("Nothing was changed." if plan.rows else "All rows are as they were; there is nothing to do.")
        return False
    return True


def _show_rows(sides: Sides, plan: RescuePlan, shown: int) -> None:
    from tmi_ops.cli.rescue_view import show_rows
    from tmi_ops.rescue.pairs import find_table
    from tmi_ops.rescue.reading import differing_rows

    for table in plan.tables:
        if table.written and shown:
            pair = find_table(sides.pairs, sides.then, table.table)
            show_rows(differing_rows(sides, pair, only="planned", limit=shown), table.written)


def _print_json(sides: Sides, plan: RescuePlan | ColumnsPlan) -> int:
    from tmi_ops.cli.rescue_view import row_json
    from tmi_ops.rescue.columns.planning import ColumnsPlan, planned_values
    from tmi_ops.rescue.pairs import find_table
    from tmi_ops.rescue.reading import differing_rows

    if isinstance(plan, ColumnsPlan):
        for value in planned_values(sides, plan, None):
            click.echo(json.dumps(asdict(value)))
        return _undone(plan)
    for table in plan.tables:
        for row in differing_rows(sides, find_table(sides.pairs, sides.then, table.table), only="planned"):
            click.echo(row_json(row))
    return _undone(plan)
