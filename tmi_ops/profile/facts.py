"""A profile: the facts about an application that no catalogue of PostgreSQL holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tmi_ops.profile.cache_keys import KeyPattern

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_TABLE = re.compile(r"[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)?")
_COLUMN = re.compile(r"[A-Za-z_][\w$]*")
_LONGEST_NAME = 60


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > _LONGEST_NAME:
        raise ValueError("a name is of lower-case letters, digits, - and _, and begins with a letter")
    return value


def _table(value: str) -> str:
    if not _TABLE.fullmatch(value):
        raise ValueError("a table is named `table` or `schema.table`")
    return value


def _column(value: str) -> str:
    if not _COLUMN.fullmatch(value):
        raise ValueError("a column's name is of letters, digits, _ and $")
    return value


Name = Annotated[str, AfterValidator(_name)]
Table = Annotated[str, AfterValidator(_table)]
Column = Annotated[str, AfterValidator(_column)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class SqlCheck(_Facts):
    """A question of the application's own: one SELECT, asked read-only of copies and of the living database.

    Without bounds it must return no row; with `at_least` or `at_most` the one number that it returns lies within them.
    """

    name: Name
    sql: str = Field(min_length=1)
    means: str = ""
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @property
    def is_bounded(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most")
        if not re.match(r"\s*(select|with|table|values)\b", self.sql, re.IGNORECASE):
            raise ValueError("a check is one SELECT")
        return self


class Root(_Facts):
    """A row that stands for a whole: `recover rows --root order=17` brings it back with all that hangs on it."""

    table: Table


class Tie(_Facts):
    """Rows of `child` belong to the row of `parent` whose column equals theirs, though no foreign key says so."""

    child: Table
    column: Column
    parent: Table
    referenced: Column = "id"


class Profile(_Facts):
    """What is known of the application.

    Attributes:
        name: `tmi`, `none`, or the file's own.
        has_models: its schema is declared in this program, so it can be migrated and validated.
        has_roles: so are its roles.
        tables: that must be there, beside what models declare.
        roots: by name, what `recover rows` can be asked for as a whole.
        ties: relations between rows without a foreign key.
        cache: kinds of keys in the application's Redis.
        checks: its own.
    """

    name: Name
    has_models: bool = False
    has_roles: bool = False
    tables: tuple[Table, ...] = ()
    roots: Mapping[Name, Root] = {}
    ties: tuple[Tie, ...] = ()
    cache: tuple[KeyPattern, ...] = ()
    checks: tuple[SqlCheck, ...] = ()

    @model_validator(mode="after")
    def _names_are_one(self) -> Self:
        names = [check.name for check in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two checks are called {', '.join(twice)}")
        return self
