"""What the parts of a data set share: chance, calendar, texts, and who and what exists so far."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tmi_ops.stack.dataset.chance import Calendar, Chance
from tmi_ops.stack.dataset.prose import Prose, prose_of
from tmi_ops.stack.dataset.vocabulary import ORGANISATIONS

Value: TypeAlias = str | int | float | bool | bytes | None
Row: TypeAlias = dict[str, Value]
Rows: TypeAlias = defaultdict[str, list[Row]]


@dataclass(frozen=True)
class User:
    """A person or machine account that acts in the data set."""

    id: str
    provider: str
    provider_user_id: str
    email: str
    name: str
    since: int


@dataclass(frozen=True)
class Project:
    """A project and the team it belongs to."""

    id: str
    name: str
    team_id: str


@dataclass(frozen=True)
class Survey:
    """A survey template that can be answered."""

    id: str
    version: str
    definition: str
    questions: tuple[Any, ...]
    since: int


@dataclass
class World:
    """The state of one generation, from its seed."""

    seed: int
    chance: Chance = field(init=False)
    calendar: Calendar = field(init=False)
    prose: Prose = field(init=False)
    users: list[User] = field(default_factory=list)
    group_ids: list[str] = field(default_factory=list)
    projects: list[Project] = field(default_factory=list)
    surveys: list[Survey] = field(default_factory=list)
    webhook_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = Chance(f"rows {self.seed}")
        self.calendar = Calendar(self.seed, self.chance)
        self.prose = prose_of(self.seed)

    def user(self) -> User:
        return self.chance.pick(self.users)

    def some_users(self, count: int) -> list[User]:
        """Distinct users, at most as many as there are."""
        return self.chance.sample(self.users, min(count, len(self.users)))


def new_rows() -> Rows:
    """No rows yet, of any table."""
    return defaultdict(list)


def as_json(value: Any) -> str:
    """JSON as the TMI server writes it: compact, not ASCII only."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def link(chance: Chance, *path: str) -> str:
    """An address nobody can reach, of a plausible organisation."""
    return f"https://{chance.pick(('wiki', 'git', 'docs', 'tracker'))}.{chance.pick(ORGANISATIONS)}/{'/'.join(path)}"


def slug(name: str) -> str:
    """`Checkout API` -> `checkout-api`."""
    return name.lower().replace(" ", "-")
