"""A profile: facts about an application that PostgreSQL's catalogs do not hold."""

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
        raise ValueError("a name consists of lower-case letters, digits, - and _, and begins with a letter")
    return value


def _table(value: str) -> str:
    if not _TABLE.fullmatch(value):
        raise ValueError("a table must be named as `table` or `schema.table`")
    return value


def _column(value: str) -> str:
    if not _COLUMN.fullmatch(value):
        raise ValueError("a column name consists of letters, digits, _ and $")
    return value


Name = Annotated[str, AfterValidator(_name)]
Table = Annotated[str, AfterValidator(_table)]
Column = Annotated[str, AfterValidator(_column)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class SqlCheck(_Facts):
    """A check of the application's own: one SELECT, run read-only on copies and on the live database.

    Without bounds, it must return no row; with `at_least` or `at_most`, it must return one number within them.
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
            raise ValueError("at_least is greater than at_most")
        if not re.match(r"\s*(select|with|table|values)\b", self.sql, re.IGNORECASE):
            raise ValueError("a check must be one SELECT")
        return self


class Root(_Facts):
    """A table whose rows can be rescued with all dependent rows: `recover rows --root order=17`."""

    table: Table


class Tie(_Facts):
    """Rows of `child` reference the row of `parent` with an equal column value, without a foreign key."""

    child: Table
    column: Column
    parent: Table
    referenced: Column = "id"


class Profile(_Facts):
    """The facts about the application.

    Attributes:
        name: `tmi`, `none`, or the name in the file.
        has_models: its schema is declared in this program, so it can be migrated and validated.
        has_roles: its roles are declared in this program, too.
        tables: tables that must exist, in addition to those of the models.
        roots: by name, the tables for `recover rows --root`.
        ties: references between rows without a foreign key.
        cache: patterns of keys in the application's Redis.
        checks: the application's own checks.
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
            raise ValueError(f"two checks have the name {', '.join(twice)}")
        return self
