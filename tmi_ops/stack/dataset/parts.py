"""What every part of a threat model has in common: identity, alias, life, metadata and history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tmi_ops.stack.dataset.history import Tracked, add_history
from tmi_ops.stack.dataset.metadata import add_metadata
from tmi_ops.stack.dataset.world import Row, Rows, User, World

TABLES: Mapping[str, str] = {
    "diagram": "diagrams",
    "asset": "assets",
    "threat": "threats",
    "document": "documents",
    "note": "notes",
    "repository": "repositories",
}


@dataclass(frozen=True)
class Life:
    """The moments of creation, last change and, for what was deleted softly, deletion."""

    created: int
    modified: int
    deleted: int | None

    def columns(self, world: World) -> Row:
        stamp = world.calendar.stamp
        return {
            "created_at": stamp(self.created),
            "modified_at": stamp(self.modified),
            "deleted_at": None if self.deleted is None else stamp(self.deleted),
        }


@dataclass
class ThreatModel:
    """A threat model while its parts are made. Parts are known by id."""

    id: str
    name: str
    framework: str
    owner: User
    editors: list[User]
    life: Life
    aliases: Counter[str] = field(default_factory=Counter)
    diagrams: dict[str, Mapping[str, str]] = field(default_factory=dict)
    assets: list[str] = field(default_factory=list)
    threats: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)


def new_life(world: World, created: int, until: int) -> Life:
    """A life that began at `created` and whose last change was no later than `until`."""
    modified = world.calendar.moment(created, until)
    return Life(created, modified, world.calendar.later(modified, 20) if world.chance.likely(0.03) else None)


def part_life(world: World, model: ThreatModel) -> Life:
    """The life of a part, within that of its threat model."""
    return new_life(world, world.calendar.moment(model.life.created, model.life.modified), model.life.modified)


def add_part(
    world: World,
    rows: Rows,
    model: ThreatModel,
    kind: str,
    life: Life,
    columns: Row,
    *,
    version: int,
    metadata: float,
    **structured: Any,
) -> str:
    """One part of a threat model with its metadata and history.

    Args:
        columns: what is particular to this kind.
        version: how often it was written; not every table keeps it.
        metadata: how many pairs of metadata on average.
        structured: replaces, in the history, columns that hold JSON text.

    Returns:
        its id.
    """
    part = world.chance.uuid()
    model.aliases[kind] += 1
    row: Row = {"id": part, "threat_model_id": model.id, "alias": model.aliases[kind], **columns, **life.columns(world)}
    rows[TABLES[kind]].append(row)
    add_metadata(world, rows, kind, part, life.created, metadata)
    track(world, rows, model, kind, row, life, version, **structured)
    return part


def track(
    world: World, rows: Rows, model: ThreatModel, kind: str, row: Row, life: Life, version: int, **structured: Any
) -> None:
    """The history of `row`. The picture of a diagram has none, as it follows from the cells."""
    state = {name: value for name, value in row.items() if value is not None and name != "svg_image"} | structured
    tracked = Tracked(kind, str(row["id"]), model.id, str(row["name"]), state, version, life.created, life.modified)
    add_history(world, rows, tracked, model.editors, life.deleted)
