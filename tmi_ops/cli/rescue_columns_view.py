"""Screens for restoring dropped columns: which rows get what, and every statement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.rescue_view import brief, short, show_barriers
from tmi_ops.cli.terminal import out

if TYPE_CHECKING:
    from tmi_ops.rescue.columns.planning import ColumnsPlan
    from tmi_ops.rescue.columns.values import Valued


def show_columns_plan(plan: ColumnsPlan, rows: Iterable[Valued], *, notes: bool) -> None:
    """What rows get, some of the rows, what else is restored, and the statements; notes only if no runbook shows them
    next."""
    out.print(f"Restore into [bold]{escape(plan.database)}[/], as of {escape(plan.past)}:")
    out.print(f"  {escape(plan.selection.words())}")
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row(f"{plan.rows:,}", f"rows of {escape(short(plan.table))} get their past values")
    if plan.others:
        table.add_row(f"{plan.others:,}", f"other rows get {escape(plan.others_get())}")
    if plan.gone:
        table.add_row(f"{plan.gone:,}", "rows were deleted since and are not restored by this")
    out.print(table)
    _show_rows(plan, rows)
    _show_list("To be restored", plan.returning)
    statements = [statement for never in plan.never_null for statement in never.statements]
    _show_list("In one transaction", (*plan.add, "fill it by key", *plan.complete, *statements))
    show_barriers(plan.barriers)
    for trigger in plan.fires:
        out.print(f"[yellow]Note:[/] filling the column fires {escape(trigger)}")
    for note in plan.notes if notes else ():
        out.print(f"[yellow]Note:[/] {escape(note)}")


def _show_rows(plan: ColumnsPlan, rows: Iterable[Valued]) -> None:
    shown = 0
    for row in rows:
        shown += 1
        values = ", ".join(f"{column}={brief(value)}" for column, value in row.then.items())
        out.print(
            f"  [green]fill[/] [bold]{escape(short(row.table))}[/] {escape(', '.join(row.key))} {escape(values)}",
            overflow="ellipsis",
            no_wrap=True,
        )
    if shown and plan.rows > shown:
        out.print(f"  and {plan.rows - shown:,} more (--rows N shows more, --json all)")


def _show_list(heading: str, lines: Iterable[str]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("-", escape(line))
    out.print(f"{heading}:")
    out.print(table)
