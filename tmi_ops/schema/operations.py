"""The steps of a migration as frozen values, and the plan they make up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tmi_ops.schema.seed import SeedRow


@dataclass(frozen=True)
class CreateDatabase:
    database: str


@dataclass(frozen=True)
class BuildIndex:
    """An index of a model. On a table that exists it is built CONCURRENTLY, over an invalid `leftover` if any."""

    table: str
    index: str
    leftover: str | None = None


@dataclass(frozen=True)
class CreateTable:
    """A table with its keys, checks and indexes, in one transaction. `locks` are existing tables it refers to."""

    table: str
    indexes: tuple[BuildIndex, ...]
    locks: tuple[str, ...] = ()


@dataclass(frozen=True)
class AddColumn:
    """`required`: with NOT NULL at once, because the table is empty or the column has a constant default."""

    table: str
    column: str
    required: bool


@dataclass(frozen=True)
class SetDefault:
    table: str
    column: str


@dataclass(frozen=True)
class RequireValue:
    """NOT NULL on an existing column, proven first by a validated CHECK so that no long lock is held."""

    table: str
    column: str


@dataclass(frozen=True)
class AddPrimaryKey:
    table: str
    columns: tuple[str, ...]
    leftover: str | None = None


@dataclass(frozen=True)
class AddConstraint:
    """A CHECK or a foreign key, NOT VALID: it holds for new rows at once. `referenced` is the other table, if any."""

    table: str
    constraint: str
    referenced: str | None = None


@dataclass(frozen=True)
class ValidateConstraint:
    """Prove a NOT VALID constraint for the rows that were there before."""

    table: str
    constraint: str
    referenced: str | None = None


@dataclass(frozen=True)
class InsertSeed:
    table: str
    rows: tuple[SeedRow, ...]


Operation: TypeAlias = (
    CreateDatabase
    | CreateTable
    | AddColumn
    | SetDefault
    | RequireValue
    | AddPrimaryKey
    | BuildIndex
    | AddConstraint
    | ValidateConstraint
    | InsertSeed
)


@dataclass(frozen=True)
class Blocked:
    """What a migration leaves to a person, why, and what that person can do."""

    table: str
    name: str
    reason: str
    remedy: str
    rows: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class MigrationPlan:
    """Steps in the order they are taken, and what no step can do. `lacking`: rights without which none is begun."""

    database: str
    operations: tuple[Operation, ...]
    blocked: tuple[Blocked, ...] = ()
    lacking: tuple[Blocked, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do; what is blocked may remain."""
        return not self.operations
