"""What TMI calls and is called by: webhook subscriptions, addons, denied addresses."""

from __future__ import annotations

from tmi_ops.stack.dataset.parts import ThreatModel
from tmi_ops.stack.dataset.vocabulary import PARTS
from tmi_ops.stack.dataset.world import Rows, World, as_json, slug

EVENTS = tuple(
    f"{kind}.{change}"
    for kind in ("threat_model", "diagram", "threat", "document", "note", "repository", "asset", "addon")
    for change in ("created", "updated", "deleted")
)
ICONS = ("material-symbols:bolt", "fa-solid fa-robot", "material-symbols:search", "fa-solid fa-bug")
# None of these is among the patterns TMI seeds.
DENIED = ("*.internal.example", "*.corp.example", "100.64.*", "198.18.*", "^https?://[^/]*@", "intranet", "*.onion")


def add_denied_addresses(world: World, rows: Rows) -> None:
    """Patterns an operator has added to the list TMI seeds."""
    for pattern in DENIED:
        rows["webhook_url_deny_list"].append(
            {
                "id": world.chance.uuid(),
                "pattern": pattern,
                "pattern_type": "regex" if pattern.startswith("^") else "glob",
                "description": f"Block {pattern}, as agreed with network engineering",
                "created_at": world.calendar.stamp(world.calendar.moment()),
            }
        )


def add_integrations(world: World, rows: Rows, model: ThreatModel, *, with_addon: bool) -> None:
    """A webhook subscription, and an addon that uses it."""
    chance, calendar = world.chance, world.calendar
    webhook, part = chance.uuid(), chance.pick(PARTS)
    created = calendar.moment(model.life.created)
    used = calendar.later(created, 60)
    status = chance.pick(("active", "active", "active", "pending_verification", "pending_delete"))
    scope = model.id if chance.likely(0.7) else None
    rows["webhook_subscriptions"].append(
        {
            "id": webhook,
            "owner_internal_uuid": model.owner.id,
            "threat_model_id": scope,
            "name": f"{part} {chance.pick(('ticket sync', 'chat notifier', 'scanner', 'report builder'))}",
            "url": f"https://hooks.example.com/{slug(part)}/{chance.hexadecimal(12)}",
            "events": as_json(chance.sample(EVENTS, chance.span(1, 6))),
            "secret": chance.hexadecimal(64),
            "status": status,
            "challenge": chance.hexadecimal(40) if status == "pending_verification" else None,
            "challenges_sent": chance.span(1, 3),
            "timeout_count": chance.few(0.3, 5),
            "created_at": calendar.stamp(created),
            "modified_at": calendar.stamp(used),
            "last_successful_use": calendar.stamp(used) if status == "active" else None,
            "publication_failures": chance.few(0.4, 9),
            "operator_pinned": chance.likely(0.03),
        }
    )
    if with_addon:
        _add_addon(world, rows, webhook, scope, part, created)


def _add_addon(world: World, rows: Rows, webhook: str, scope: str | None, part: str, created: int) -> None:
    chance, calendar = world.chance, world.calendar
    parameters = [
        {"name": "depth", "type": "enum", "required": False, "enum_values": ["quick", "full"]},
        {"name": "branch", "type": "string", "required": chance.likely(0.5)},
    ]
    rows["addons"].append(
        {
            "id": chance.uuid(),
            "created_at": calendar.stamp(calendar.later(created, 10)),
            "name": f"{part} {chance.pick(('analyser', 'importer', 'threat finder', 'diagram builder'))}",
            "webhook_id": webhook,
            "description": world.prose.sentences(chance, "system", 2, part),
            "icon": chance.pick(ICONS),
            "objects": as_json(chance.sample(("threat_model", "diagram", "repository", "asset"), 2)),
            "threat_model_id": scope,
            "parameters": as_json(parameters[: chance.span(1, 2)]),
        }
    )
