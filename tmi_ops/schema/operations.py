"""The steps of a migration and its plan, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tmi_ops.schema.seed import SeedRow


@dataclass(frozen=True)
class CreateDatabase:
    database: str


@dataclass(frozen=True)
class BuildIndex:
    """An index of a model. On an existing table it is built CONCURRENTLY, replacing an invalid `leftover` if any."""

    table: str
    index: str
    leftover: str | None = None


@dataclass(frozen=True)
class CreateTable:
    """A table with its keys, checks and indexes, in one transaction. `locks`: existing tables it references."""

    table: str
    indexes: tuple[BuildIndex, ...]
    locks: tuple[str, ...] = ()


@dataclass(frozen=True)
class AddColumn:
    """`required`: NOT NULL at once, because the table is empty or the column has a constant default."""

    table: str
    column: str
    required: bool


@dataclass(frozen=True)
class SetDefault:
    table: str
    column: str


@dataclass(frozen=True)
class RequireValue:
    """NOT NULL on an existing column; a CHECK is validated first, so that no lock is held for long."""

    table: str
    column: str


@dataclass(frozen=True)
class AddPrimaryKey:
    table: str
    columns: tuple[str, ...]
    leftover: str | None = None


@dataclass(frozen=True)
class AddConstraint:
    """A CHECK or a foreign key, NOT VALID: it applies to new rows at once. `referenced`: the other table, if any."""

    table: str
    constraint: str
    referenced: str | None = None


@dataclass(frozen=True)
class ValidateConstraint:
    """Validate a NOT VALID constraint for existing rows."""

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
    """Something that a migration leaves to a person: why, and what to do."""

    table: str
    name: str
    reason: str
    remedy: str
    rows: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class MigrationPlan:
    """The steps in order, and what no step can do. `lacking`: missing privileges; with any, no step is started."""

    database: str
    operations: tuple[Operation, ...]
    blocked: tuple[Blocked, ...] = ()
    lacking: tuple[Blocked, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there are no steps; there may be blocked items."""
        return not self.operations
