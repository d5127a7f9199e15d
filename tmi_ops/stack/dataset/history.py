"""The audit trail: who changed what and when, and the snapshots that make a change reversible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tmi_ops.stack.dataset.world import Rows, User, World, as_json

# TMI stores every tenth version whole and the rest as a reverse JSON Patch.
CHECKPOINT_INTERVAL = 10
EDITED_FIELDS: Mapping[str, tuple[str, str]] = {
    "threat_model": ("description", "system"),
    "diagram": ("description", "system"),
    "threat": ("mitigation", "mitigation"),
    "asset": ("description", "system"),
    "document": ("description", "system"),
    "note": ("content", "review"),
    "repository": ("description", "system"),
}


@dataclass(frozen=True)
class Tracked:
    """An object with a history: what TMI's audit trail says of it."""

    kind: str
    id: str
    threat_model_id: str
    name: str
    state: Mapping[str, Any]
    version: int
    created: int
    modified: int


def add_history(world: World, rows: Rows, tracked: Tracked, editors: list[User], deleted: int | None = None) -> None:
    """One audit entry for each version with its snapshot; old snapshots are pruned, as TMI's retention does."""
    for version in range(1, tracked.version + 1):
        share = (version - 1) / max(1, tracked.version - 1)
        moment = tracked.created + int((tracked.modified - tracked.created) * share)
        pruned = moment < world.calendar.end // 4
        change = "created" if version == 1 else world.chance.pick(("updated", "patched", "patched"))
        entry = _add_entry(
            world, rows, tracked, world.chance.pick(editors), change, None if pruned else version, moment
        )
        if not pruned:
            _add_snapshot(world, rows, tracked, entry, version, moment)
    if deleted is not None:
        _add_entry(world, rows, tracked, world.chance.pick(editors), "deleted", None, deleted)


def _add_entry(
    world: World, rows: Rows, tracked: Tracked, actor: User, change: str, version: int | None, moment: int
) -> str:
    entry = world.chance.uuid()
    kind = tracked.kind.replace("_", " ")
    changed = f": {EDITED_FIELDS[tracked.kind][0]}" if change in ("updated", "patched") else ""
    rows["audit_entries"].append(
        {
            "id": entry,
            "threat_model_id": tracked.threat_model_id,
            "object_type": tracked.kind,
            "object_id": tracked.id,
            "version": version,
            "change_type": change,
            "actor_email": actor.email,
            "actor_provider": actor.provider,
            "actor_provider_id": actor.provider_user_id,
            "actor_display_name": actor.name,
            "change_summary": f"{change.capitalize()} {kind} '{tracked.name}'{changed}",
            "created_at": world.calendar.stamp(moment),
        }
    )
    return entry


def _add_snapshot(world: World, rows: Rows, tracked: Tracked, entry: str, version: int, moment: int) -> None:
    whole = version % CHECKPOINT_INTERVAL == 0
    rows["version_snapshots"].append(
        {
            "id": world.chance.uuid(),
            "audit_entry_id": entry,
            "object_type": tracked.kind,
            "object_id": tracked.id,
            "version": version,
            "snapshot_type": "checkpoint" if whole else "diff",
            "data": as_json({**tracked.state, "version": version}) if whole else _reverse_patch(world, tracked, moment),
            "created_at": world.calendar.stamp(moment),
        }
    )


def _reverse_patch(world: World, tracked: Tracked, moment: int) -> str:
    chance = world.chance
    field, register = EDITED_FIELDS[tracked.kind]
    before = world.prose.sentences(chance, register, chance.span(1, 4), tracked.name)
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": f"/{field}", "value": before},
        {"op": "replace", "path": "/modified_at", "value": world.calendar.iso(moment)},
    ]
    cells = tracked.state.get("cells")
    if cells:
        moved = chance.span(0, len(cells) - 1)
        patch.append({"op": "add", "path": f"/cells/{moved}", "value": cells[moved]})
    return as_json(patch)
