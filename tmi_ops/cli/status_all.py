"""`tmi-ops status --all`: a line for each environment and database in tmi-ops.toml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tmi_ops.cli.status import COULD_NOT_LOOK, exit_code, look
from tmi_ops.cli.status_marks import MARKS
from tmi_ops.command_texts import all_with_environment, with_environment
from tmi_ops.errors import OpsError
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.status import Recoverability, Status
from tmi_ops.settings import environment_name, find_fleet
from tmi_ops.settings.fleet import Declared
from tmi_ops.settings.sources import process_variables
from tmi_ops.text import format_duration

# Each reads a store, a server and records; more threads would only wait for each other's sockets.
_AT_ONCE = 8


@dataclass(frozen=True)
class Seen:
    """The status of one. `found` None: its settings could not be read, and `problem` says why."""

    name: str
    found: Status | None
    problem: str = ""

    @property
    def code(self) -> int:
        return COULD_NOT_LOOK if self.found is None else exit_code(self.found)


def show_all(*, as_json: bool) -> int:
    """Show all of them, even if some fail. Returns the worst exit code."""
    seen = look_at_all()
    if as_json:
        click.echo(json.dumps([as_facts(one) for one in seen], indent=2))
    else:
        from tmi_ops.cli.terminal import out

        out.print(screen(seen, datetime.now(UTC)))
    return worst_code(seen)


def worst_code(seen: Sequence[Seen]) -> int:
    """2 before 1 before 0: what could not be read may be worse than what is at risk."""
    return max(one.code for one in seen)


def look_at_all() -> list[Seen]:
    """Read the status of all, in the file's order.

    Raises:
        SettingsError: the file cannot be read.
    """
    fleet = find_fleet(process_variables(None), Path.cwd())
    members: Mapping[str, Declared | None] = {environment_name(): None} if fleet is None else fleet.members
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="status of") as pool:
        return list(pool.map(_look, members, members.values()))


def _look(name: str, declared: Declared | None) -> Seen:
    try:
        return Seen(name, look(declared))
    except OpsError as error:
        return Seen(name, None, error.message)
    except Exception as error:  # noqa: BLE001 - the others are shown all the same
        return Seen(name, None, f"{type(error).__name__}: {error}")


def as_facts(one: Seen) -> dict[str, Any]:
    """What `status --json` prints, with the name."""
    if one.found is None:
        return {
            "name": one.name,
            "standing": Standing.UNKNOWN.value,
            "problem": with_environment(one.problem, one.name),
        }
    from tmi_ops.cli.status_facts import as_facts as facts_of

    facts: dict[str, Any] = all_with_environment(facts_of(one.found), one.name)
    return {"name": one.name, **facts}


def screen(seen: Sequence[Seen], now: datetime) -> RenderableType:
    """A line for each, and below the table the first problem of each."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column()
    table.add_row(*(Text(title, style="bold") for title in ("", "RPO", "RTO", "verified up to")))
    for one in seen:
        table.add_row(*_row(one, now))
    return Group(table, *_troubles(seen))


def _row(one: Seen, now: datetime) -> tuple[Text, Text, Text, Text]:
    standing = Standing.UNKNOWN if one.found is None else one.found.standing
    mark, style = MARKS[standing]
    name = Text.assemble((f"{mark} ", style), one.name)
    found = one.found.recoverability if one.found else None
    if found is None:
        return name, Text("unknown"), Text("unknown"), Text("unknown")
    return (
        name,
        _promise(found.rpo.standing, found.rpo.value, found.rpo.objective),
        _promise(found.rto.standing, found.rto.value, found.rto.objective),
        _verified(found, now),
    )


def _promise(standing: Standing, value: timedelta | None, objective: timedelta) -> Text:
    said = "unknown" if value is None else format_duration(value.total_seconds())
    return Text.assemble((said, MARKS[standing][1]), f" of {format_duration(objective.total_seconds())}")


def _verified(found: Recoverability, now: datetime) -> Text:
    if found.facts.verified is None:
        return Text("nothing", style="bold red")
    at = found.facts.verified.at.astimezone(UTC)
    same_day = at.date() == now.astimezone(UTC).date()
    return Text(f"{at:%H:%M:%S} UTC" if same_day else f"{at:%Y-%m-%d %H:%M} UTC")


def _troubles(seen: Sequence[Seen]) -> Iterator[RenderableType]:
    troubled = [(one, said) for one in seen if (said := _trouble(one))]
    if troubled:
        yield Text()
    for one, said in troubled:
        row = Table.grid(padding=(0, 1))
        row.add_row(Text(f"{one.name}:", style="bold"), Text(with_environment(said, one.name)))
        yield row
    if troubled:
        yield Text("\nDetails of one: tmi-ops -e NAME status", style="dim")


def _trouble(one: Seen) -> str:
    """The first problem; empty if there is none."""
    if one.found is None:
        return one.problem
    found = one.found.recoverability
    if found is None:
        return one.found.store_problem or "the store could not be read"
    worst = next((item for item in one.found.judged if item.standing is not Standing.MET), None)
    said = [one.found.database_problem or "", worst.reason if worst else "", one.found.automatic.problem or ""]
    return next((text for text in said if text), "") if one.code else ""
