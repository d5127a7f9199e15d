"""Threat models: the model itself, who may see it, and everything inside it."""

from __future__ import annotations

from tmi_ops.stack.dataset.diagrams import add_diagrams
from tmi_ops.stack.dataset.metadata import add_metadata
from tmi_ops.stack.dataset.parts import Life, ThreatModel, track
from tmi_ops.stack.dataset.sources import add_documents, add_notes, add_repositories
from tmi_ops.stack.dataset.threats import add_assets, add_threats
from tmi_ops.stack.dataset.vocabulary import PARTS, PROCESS_KINDS, SUBJECTS
from tmi_ops.stack.dataset.world import Row, Rows, User, World, link

# The guide's CHECK constraint (Constraint Enforcement); most people model with STRIDE.
FRAMEWORKS = ("STRIDE",) * 12 + ("LINDDUN", "LINDDUN", "CIA", "DIE", "PLOT4ai")
STATUSES = (
    "not_started",
    "in_progress",
    "in_progress",
    "pending_review",
    "approved",
    "approved",
    "rejected",
    "deferred",
)


def add_threat_model(world: World, rows: Rows, alias: int) -> ThreatModel:
    """One threat model, the `alias`-th of the database, with all its parts and their history."""
    model = _new_model(world)
    _add_model(world, rows, model, alias)
    groups = world.chance.sample(world.group_ids, world.chance.span(1, 2))
    add_access(world, rows, "threat_model", model.id, model.editors, groups, model.life.created)
    add_diagrams(world, rows, model)
    add_assets(world, rows, model)
    add_threats(world, rows, model)
    add_documents(world, rows, model)
    add_notes(world, rows, model)
    add_repositories(world, rows, model)
    rows["alias_counters"] += [
        {"parent_id": model.id, "object_type": kind, "next_alias": last + 1} for kind, last in model.aliases.items()
    ]
    return model


def add_access(world: World, rows: Rows, kind: str, id_: str, users: list[User], groups: list[str], after: int) -> None:
    """The access list of a threat model or survey response; the first of `users` owns it."""
    chance, calendar = world.chance, world.calendar
    owner = users[0].id
    subjects: list[tuple[str | None, str | None]] = [(user.id, None) for user in users]
    subjects += [(None, group) for group in groups]
    for user, group in subjects:
        granted = calendar.stamp(calendar.later(after, 10))
        rows[f"{kind}_access"].append(
            {
                "id": chance.uuid(),
                f"{kind}_id": id_,
                "user_internal_uuid": user,
                "group_internal_uuid": group,
                "subject_type": "user" if user else "group",
                "role": "owner" if user == owner else chance.pick(("writer", "reader", "reader")),
                "granted_by_internal_uuid": owner,
                "created_at": granted,
                "modified_at": granted,
            }
        )


def _new_model(world: World) -> ThreatModel:
    chance, calendar = world.chance, world.calendar
    editors = world.some_users(chance.span(2, 6))
    created = calendar.moment(after=editors[0].since)
    modified = calendar.later(created, 80)
    return ThreatModel(
        id=chance.uuid(),
        name=f"{chance.pick(PARTS)} {chance.pick(PROCESS_KINDS)} {chance.pick(SUBJECTS).lower()}",
        framework=chance.pick(FRAMEWORKS),
        owner=editors[0],
        editors=editors,
        life=Life(created, modified, calendar.later(modified, 30) if chance.likely(0.02) else None),
    )


def _add_model(world: World, rows: Rows, model: ThreatModel, alias: int) -> None:
    chance, calendar = world.chance, world.calendar
    created, modified = model.life.created, model.life.modified
    version = 1 + chance.few(4, 40)
    row: Row = {
        "id": model.id,
        "owner_internal_uuid": model.owner.id,
        "name": model.name,
        "description": world.prose.sentences(chance, "system", chance.span(2, 9), model.name),
        "created_by_internal_uuid": model.owner.id,
        "threat_model_framework": model.framework,
        "issue_uri": link(chance, "issues", str(chance.span(100, 99_999))) if chance.likely(0.5) else None,
        "status": chance.pick(STATUSES),
        "status_updated": calendar.stamp(calendar.moment(created, modified)),
        "alias": alias,
        "is_confidential": chance.likely(0.08),
        "security_reviewer_internal_uuid": world.user().id if chance.likely(0.6) else None,
        "project_id": chance.pick(world.projects).id if chance.likely(0.8) else None,
        "last_accessed_at": calendar.stamp(calendar.later(modified, 30)),
        "version": version,
        **model.life.columns(world),
    }
    rows["threat_models"].append(row)
    add_metadata(world, rows, "threat_model", model.id, created, mean=3)
    track(world, rows, model, "threat_model", row, model.life, version)
