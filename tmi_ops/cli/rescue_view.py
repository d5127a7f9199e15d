"""What a person sees of a rescue: what differs, what would be done to which rows, and what was done."""

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
    from tmi_ops.rescue.differences import Difference
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.reading import Row

_VALUE_LENGTH = 40
_STATES = {"deleted": "red", "inserted": "green", "changed": "yellow"}


def show_difference(difference: Difference) -> None:
    """A line a table, then what else differs."""
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
            out.print(f"  [red]{escape(short(one.table))} is gone as a whole.[/]")
        for column in one.lost_columns:
            out.print(f"  [red]{escape(short(one.table))} lost its column {escape(column)}.[/]")
        for column in one.new_columns:
            out.print(f"  {escape(short(one.table))} has the new column {escape(column)}.")
    for name in difference.new_tables:
        out.print(f"  {escape(short(name))} is new.")
    for one in difference.tables:
        if one.lost_columns and not one.dropped:
            columns = " ".join(f"--column {column}" for column in one.lost_columns)
            out.print(f"Bring it back: tmi-ops recover rows --table {escape(short(one.table))} {escape(columns)} ...")
    if difference.equal or not difference.tables:
        out.print(f"{difference.equal:,} table{'s hold' if difference.equal != 1 else ' holds'} what they held.")


def show_barriers(barriers: Iterable[Barrier]) -> None:
    """What keeps a plan from being carried out, each with what helps."""
    for barrier in barriers:
        out.print(f"[red]In the way:[/] {escape(barrier.what)}\n    {escape(barrier.hint)}")


def show_plan(plan: RescuePlan, *, notes: bool) -> None:
    """What would be done, table by table, and what is in the way; its notes only where no runbook shows them next."""
    out.print(f"Bring back into [bold]{escape(plan.database)}[/], as of {escape(plan.past)}:")
    out.print(f"  {escape(plan.selection.words())}")
    shown = [one for one in plan.tables if one.written or one.keep or one.leave or one.as_it_was or one.gone]
    table = _table("table", ">insert", ">change back", ">stays", ">left out", ">as it was")
    for one in shown:
        name = escape(short(one.table)) + (" [red](created again)[/]" if one.recreate else "")
        table.add_row(name, *map(_number, (one.insert, one.update, one.keep, one.leave, one.as_it_was)))
    out.print(table)
    show_barriers(plan.barriers)
    for conflict in plan.conflicts:
        answer = f"[yellow]each {conflict.becomes}[/]" if conflict.becomes else "[red]unsolved[/]"
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
                f"[yellow]Note:[/] {one.for_others:,} of {escape(short(one.table))} come because others refer to them"
            )
    for note in plan.notes if notes else ():
        out.print(f"[yellow]Note:[/] {escape(note)}")
    if plan.rows:
        out.print(f"[bold]{plan.rows:,} rows[/] would be written, in one transaction. No row is deleted.")


def show_rows(rows: Iterable[Row], total: int) -> None:
    """Rows one by one; of a changed one, the columns that differ."""
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
    """A frozen value for programs."""
    return json.dumps(asdict(value), indent=2, default=str)


def row_json(row: Row) -> str:
    return json.dumps({**asdict(row), "changed": row.changed})


_CONFLICTS: Mapping[str, str] = {
    "changed": "there with other content",
    "refused": "there with other content, and the table refuses to have it changed",
    "taken": "unique value belongs to another row now",
    "orphan": "what they refer to is gone on both sides",
    "unfit": "a value does not fit the column's type of now",
    "barred": "a newer constraint forbids them",
}


def _table(*headings: str) -> Table:
    """Headings that begin with `>` are of numbers."""
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
    """Of a changed row, each column on both sides; of another, all its columns in one."""
    if row.changed and row.then and row.now:
        then, now = row.then, row.now
        return [f"{column}: {brief(now[column])} was {brief(then[column])}" for column in row.changed]
    content = row.then or row.now or {}
    return [", ".join(f"{column}={brief(value)}" for column, value in content.items() if value not in row.key)]


def _lines(head: Text, content: Sequence[str], *, split: bool) -> list[Text]:
    """One line; with `split`, where it has no room for all, its content stands below it, a line each."""
    whole = head + Text(f" {'; '.join(content)}")
    if len(whole) <= out.width or not split:
        return [whole]
    return [head, *(Text(f"           {part}") for part in content)]


def brief(value: str | None) -> str:
    if value is None:
        return "NULL"
    line = " ".join(value.split())
    return line if len(line) <= _VALUE_LENGTH else f"{line[:_VALUE_LENGTH]}..."
