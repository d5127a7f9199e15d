"""Which rows, columns or values to restore. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tmi_ops.errors import SettingsError
from tmi_ops.profile import Profile

Policy = Literal["stop", "keep-current", "take-past", "skip"]
POLICIES: tuple[Policy, ...] = ("stop", "keep-current", "take-past", "skip")


@dataclass(frozen=True)
class TableRows:
    """Rows of one table: those selected by `where` (SQL over its columns) or `key`, or all.

    `key`: the values of the primary key's columns as text.
    """

    table: str
    where: str | None = None
    key: tuple[str, ...] | None = None

    def describe(self) -> str:
        if self.key is not None:
            return f"the row {', '.join(self.key)} of {self.table}"
        return f"the rows of {self.table} where {self.where}" if self.where else f"all rows of {self.table}"


@dataclass(frozen=True)
class SetColumns:
    """Columns of a table whose past values are restored in rows that still exist; other columns do not change."""

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class TableColumn:
    """A dropped column, to be added again and filled in rows that still exist."""

    table: str
    column: str


def named_root(said: str) -> tuple[str, str]:
    """Split `order=17` into the root's name and the key of its row.

    Raises:
        SettingsError: it is malformed.
    """
    name, equals, key = said.partition("=")
    if not (name and equals and key):
        raise SettingsError(f"{said!r} is not of the form NAME=KEY.", hint="write, for example, order=17")
    return name, key


def root_rows(profile: Profile, name: str, key: str) -> TableRows:
    """The row of one of the profile's roots; its dependent rows are restored with it.

    Raises:
        SettingsError: the profile has no such root.
    """
    root = profile.roots.get(name)
    if root is None:
        known = ", ".join(profile.roots) or "it has none"
        raise SettingsError(
            f"The profile {profile.name} has no root called {name!r}.",
            hint=f"name one of its roots ({known}), or select rows by --table with --key or --where",
        )
    return TableRows(root.table, key=(key,))


@dataclass(frozen=True)
class Selection:
    """What to restore.

    Args:
        rows: at least one; with `columns`, the rows that get values, empty for all.
        columns: dropped columns of one table. No rows are restored with them.
        with_children: also restore dependent rows. Rows that the restored rows reference are always restored.
        policy: how to resolve conflicts. stop: do nothing. keep-current: keep a row that exists; skip a row that cannot
            be restored, and rows that need it. take-past: update a row that exists to the past; if a row cannot be
            restored, do nothing. skip: skip a row in conflict, with all rows that depend on it.
        values: restore these columns' values instead of whole rows; no row is inserted then.
        accept_triggers: rows may differ from the past if the live server's triggers changed them.
    """

    rows: tuple[TableRows, ...] = ()
    columns: tuple[TableColumn, ...] = ()
    with_children: bool = True
    policy: Policy = "stop"
    accept_triggers: bool = False
    values: SetColumns | None = None

    def describe(self) -> str:
        rows = "; ".join(rows.describe() for rows in self.rows)
        if self.values is not None:
            return f"the values of {' and '.join(self.values.columns)} in {rows}"
        if not self.columns:
            return rows
        columns = f"{' and '.join(one.column for one in self.columns)} of {self.columns[0].table}"
        return f"{columns}, with values for {rows}" if rows else columns
