"""Key and value pairs that people and integrations attach to anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.vocabulary import PARTS
from tmi_ops.stack.dataset.world import Rows, World

VALUES: Mapping[str, Callable[[Chance], str]] = {
    "jira-key": lambda chance: f"{chance.pick(('SEC', 'PLAT', 'RISK', 'PAY'))}-{chance.span(100, 99_999)}",
    "cost-centre": lambda chance: f"CC-{chance.span(1000, 9999)}",
    "data-owner": lambda chance: f"{chance.pick(PARTS).lower()}-owners",
    "review-cycle": lambda chance: chance.pick(("quarterly", "yearly", "on change", "monthly")),
    "commit": lambda chance: chance.hexadecimal(40),
    "scanner-id": lambda chance: chance.uuid(),
    "environment": lambda chance: chance.pick(("production", "staging", "development", "all")),
    "confidence": lambda chance: f"0.{chance.span(10, 99)}",
    "service-tier": lambda chance: f"tier-{chance.span(1, 4)}",
    "source-line": lambda chance: f"src/{chance.pick(PARTS).lower()}/handler.go:{chance.span(10, 1400)}",
}
KEYS = tuple(VALUES)


def add_metadata(world: World, rows: Rows, entity_type: str, entity: str, created: int, mean: float = 1.0) -> None:
    """About `mean` pairs for one entity, made at or after `created`."""
    chance, calendar = world.chance, world.calendar
    for key in chance.sample(KEYS, chance.few(mean, len(KEYS))):
        made = calendar.later(created, 20)
        rows["metadata"].append(
            {
                "id": chance.uuid(),
                "entity_type": entity_type,
                "entity_id": entity,
                "key": key,
                "value": VALUES[key](chance),
                "created_at": calendar.stamp(made),
                "modified_at": calendar.stamp(calendar.later(made, 30) if chance.likely(0.3) else made),
            }
        )
