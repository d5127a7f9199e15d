"""Screens of a rescue: what differs, and what would be done to which rows and columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tmi_ops.cli.terminal import out

if TYPE_CHECKING:
    from tmi_ops.rescue.barriers import Barrier
    from tmi_ops.rescue.columns.planning import ColumnsPlan
    from tmi_ops.rescue.columns.values import Valued
    from tmi_ops.rescue.differences import Difference
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.reading import Row

_VALUE_LENGTH = 40
_STATES = {"deleted": "red", "inserted": "green", "changed": "yellow"}


def show_difference(difference: Difference) -> None:
    """One line per table, then what else differs."""
    out.print(f"Between [bold]{escape(difference.past)}[/] and now:")
    if difference.tables:
        table = _table("table", ">deleted", ">inserted", ">changed", "in columns")
        for one in difference.tables:
            table.add_row(
                escape(short(one.table)),
                *(_number(number) for number in (one.deleted, one.inserted, one.changed)),
                escape(", ".join(f"{column} {rows:,}" for column, rows in one.columns.items())),
            )
        out.print(table)
    for one in difference.tables:
        if one.dropped:
            out.print(f"  [red]The table {escape(short(one.table))} was dropped.[/]")
        for column in one.lost_columns:
            out.print(f"  [red]The column {escape(column)} of {escape(short(one.table))} was dropped.[/]")
        for column in one.new_columns:
            out.print(f"  The column {escape(column)} of {escape(short(one.table))} is new.")
    for name in difference.new_tables:
        out.print(f"  The table {escape(short(name))} is new.")
    for one in difference.tables:
        if one.lost_columns and not one.dropped:
            columns = " ".join(f"--column {column}" for column in one.lost_columns)
            out.print(f"Restore: tmi-ops recover rows --table {escape(short(one.table))} {escape(columns)} ...")
    if difference.equal or not difference.tables:
        out.print(f"{difference.equal:,} table{'s are' if difference.equal != 1 else ' is'} unchanged.")


def show_barriers(barriers: Iterable[Barrier]) -> None:
    """What prevents a plan from being executed, each with its remedy."""
    for barrier in barriers:
        out.print(f"[red]Blocked:[/] {escape(barrier.what)}\n    {escape(barrier.hint)}")


def show_plan(plan: RescuePlan, *, notes: bool) -> None:
    """What would be done per table, and what blocks it; notes only if no runbook shows them next."""
    out.print(f"Restore into [bold]{escape(plan.database)}[/], as of {escape(plan.past)}:")
    out.print(f"  {escape(plan.selection.describe())}")
    shown = [one for one in plan.tables if one.written or one.keep or one.leave or one.as_it_was or one.gone]
    table = _table("table", ">insert", ">update", ">keep", ">skip", ">unchanged")
    for one in shown:
        name = escape(short(one.table)) + (" [red](recreated)[/]" if one.recreate else "")
        table.add_row(name, *map(_number, (one.insert, one.update, one.keep, one.leave, one.as_it_was)))
    out.print(table)
    show_barriers(plan.barriers)
    for conflict in plan.conflicts:
        answer = f"[yellow]{conflict.becomes}[/]" if conflict.becomes else "[red]unresolved[/]"
        rows = f"{conflict.rows:,} row{'' if conflict.rows == 1 else 's'}"
        out.print(
            f"[yellow]Conflict:[/] {rows} of {escape(short(conflict.table))}: {escape(_CONFLICTS[conflict.kind])}; "
            f"{answer}"
        )
        if conflict.kind in ("refused", "unfit", "barred"):
            out.print(f"    {escape(conflict.detail)}")
        for example in conflict.examples:
            out.print(f"    {escape(example)}")
    for one in plan.tables:
        for trigger in one.fires:
            out.print(f"[yellow]Note:[/] writing {escape(short(one.table))} fires {escape(trigger)}")
        if one.for_others:
            out.print(
                f"[yellow]Note:[/] {one.for_others:,} rows of {escape(short(one.table))} are restored because other "
                "restored rows reference them"
            )
    for note in plan.notes if notes else ():
        out.print(f"[yellow]Note:[/] {escape(note)}")
    if plan.rows:
        out.print(f"[bold]{plan.rows:,} rows[/] would be written, in one transaction. No row is deleted.")


def show_columns_plan(plan: ColumnsPlan, rows: Iterable[Valued], *, notes: bool) -> None:
    """What rows get, some of the rows, what else is restored, and the statements; notes only if no runbook shows them
    next."""
    out.print(f"Restore into [bold]{escape(plan.database)}[/], as of {escape(plan.past)}:")
    out.print(f"  {escape(plan.selection.describe())}")
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row(f"{plan.rows:,}", f"rows of {escape(short(plan.table))} get their past values")
    if plan.others:
        table.add_row(f"{plan.others:,}", f"other rows get {escape(plan.others_get())}")
    if plan.gone:
        table.add_row(f"{plan.gone:,}", "rows were deleted since and are not restored by this")
    out.print(table)
    _show_values(plan, rows)
    _show_list("To be restored", plan.returning)
    statements = [statement for never in plan.never_null for statement in never.statements]
    _show_list("In one transaction", (*plan.add, "fill it by key", *plan.complete, *statements))
    show_barriers(plan.barriers)
    for trigger in plan.fires:
        out.print(f"[yellow]Note:[/] filling the column fires {escape(trigger)}")
    for note in plan.notes if notes else ():
        out.print(f"[yellow]Note:[/] {escape(note)}")


def _show_values(plan: ColumnsPlan, rows: Iterable[Valued]) -> None:
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


def show_rows(rows: Iterable[Row], total: int) -> None:
    """Rows one by one; for a changed row, the columns that differ."""
    shown = 0
    for row in rows:
        shown += 1
        action = row.action if row.action in ("insert", "update") else row.state
        colour = _STATES[row.state]
        reason = "" if row.reason in (None, "chosen") else f" [dim]({row.reason})[/]"
        head = f"  [{colour}]{action:<8}[/] [bold]{escape(short(row.table))}[/] {escape(', '.join(row.key))}{reason}"
        for line in _lines(Text.from_markup(head), _content(row), split=bool(row.changed)):
            out.print(line, overflow="ellipsis", no_wrap=True)
    if total > shown:
        out.print(f"  and {total - shown:,} more (--rows N shows more, --json all)")


def as_json(value: Any) -> str:
    """A frozen value as JSON."""
    return json.dumps(asdict(value), indent=2, default=str)


def row_json(row: Row) -> str:
    return json.dumps({**asdict(row), "changed": row.changed})


_CONFLICTS: Mapping[str, str] = {
    "changed": "other content now",
    "refused": "other content now, and the table does not allow updates",
    "taken": "unique value now belongs to another row",
    "orphan": "referenced row exists neither now nor then",
    "unfit": "value does not fit the column's current type",
    "barred": "forbidden by a newer constraint",
}


def _table(*headings: str) -> Table:
    """A heading that begins with `>` is for a column of numbers."""
    table = Table(box=None, padding=(0, 1))
    for heading in headings:
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
            no_wrap=heading.startswith(">"),
        )
    return table


def _number(number: int) -> str:
    return f"{number:,}" if number else "[dim]-[/]"


def short(table: str) -> str:
    return table.removeprefix("public.")


def _content(row: Row) -> list[str]:
    """For a changed row, each differing column with both values; for another, all its columns in one line."""
    if row.changed and row.then and row.now:
        then, now = row.then, row.now
        return [f"{column}: {brief(now[column])} was {brief(then[column])}" for column in row.changed]
    content = row.then or row.now or {}
    return [", ".join(f"{column}={brief(value)}" for column, value in content.items() if value not in row.key)]


def _lines(head: Text, content: Sequence[str], *, split: bool) -> list[Text]:
    """One line; with `split`, the content goes on lines of its own if it does not fit."""
    whole = head + Text(f" {'; '.join(content)}")
    if len(whole) <= out.width or not split:
        return [whole]
    return [head, *(Text(f"           {part}") for part in content)]


def brief(value: str | None) -> str:
    if value is None:
        return "NULL"
    line = " ".join(value.split())
    return line if len(line) <= _VALUE_LENGTH else f"{line[:_VALUE_LENGTH]}..."
