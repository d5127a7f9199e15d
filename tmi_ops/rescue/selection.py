"""Which rows a person wants back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tmi_ops.errors import SettingsError
from tmi_ops.profile import Profile

Policy = Literal["stop", "keep-current", "take-past", "skip"]
POLICIES: tuple[Policy, ...] = ("stop", "keep-current", "take-past", "skip")


@dataclass(frozen=True)
class TableRows:
    """Rows of one table: those that `where` (SQL over its columns) or `key` names, or all of them.

    `key` holds the values of the primary key's columns as text.
    """

    table: str
    where: str | None = None
    key: tuple[str, ...] | None = None

    def words(self) -> str:
        if self.key is not None:
            return f"the row {', '.join(self.key)} of {self.table}"
        return f"the rows of {self.table} where {self.where}" if self.where else f"all rows of {self.table}"


@dataclass(frozen=True)
class SetColumns:
    """Columns of a table whose values of then come back into rows that are still there; all else of these stays."""

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class TableColumn:
    """A column that was dropped: it is added again, and filled in rows that are still there."""

    table: str
    column: str


def named_root(said: str) -> tuple[str, str]:
    """`order=17`: the root's name and the key of its row.

    Raises:
        SettingsError: it is not written so.
    """
    name, equals, key = said.partition("=")
    if not (name and equals and key):
        raise SettingsError(f"{said!r} names no root.", hint="write it as NAME=KEY, for example order=17")
    return name, key


def root_rows(profile: Profile, name: str, key: str) -> TableRows:
    """One row that stands for a whole, as the profile names it; what hangs on it follows.

    Raises:
        SettingsError: the profile has no such root.
    """
    root = profile.roots.get(name)
    if root is None:
        known = ", ".join(profile.roots) or "none at all"
        raise SettingsError(
            f"The profile {profile.name} has no root called {name!r}.",
            hint=f"name one of its roots ({known}), or choose rows by --table with --key or --where",
        )
    return TableRows(root.table, key=(key,))


@dataclass(frozen=True)
class Selection:
    """All that shall come back.

    Args:
        rows: what shall come back, at least one; beside `columns`, the rows that get their values, none for all.
        columns: dropped columns of one table. Rows do not come back with them.
        with_children: also what hung on these rows and vanished with them. What they themselves need always comes.
        policy: what happens to conflicts.
            stop: nothing is done.
            keep-current: a row that exists stays as it is; a row that cannot come is left out with what needs it.
            take-past: a row that exists becomes what it was; where a row cannot come, nothing is done.
            skip: a row in conflict is left out, together with everything that hangs on it.
        values: instead of whole rows, these columns' values; no row comes back then.
        accept_triggers: rows may differ from the past where the living server's triggers changed them.
    """

    rows: tuple[TableRows, ...] = ()
    columns: tuple[TableColumn, ...] = ()
    with_children: bool = True
    policy: Policy = "stop"
    accept_triggers: bool = False
    values: SetColumns | None = None

    def words(self) -> str:
        rows = "; ".join(rows.words() for rows in self.rows)
        if self.values is not None:
            return f"the values of {' and '.join(self.values.columns)} in {rows}"
        if not self.columns:
            return rows
        columns = f"{' and '.join(one.column for one in self.columns)} of {self.columns[0].table}"
        return f"{columns}, with values for {rows}" if rows else columns
