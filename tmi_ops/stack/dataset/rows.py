"""The rows of a data set, in batches that refer only to themselves and to earlier ones."""

from __future__ import annotations

from collections.abc import Iterator

from tmi_ops.stack.dataset.administration import add_settings, add_system_audit, add_usability_feedback
from tmi_ops.stack.dataset.assistant import add_chats, add_embeddings
from tmi_ops.stack.dataset.collaboration import add_collaboration
from tmi_ops.stack.dataset.integrations import add_denied_addresses, add_integrations
from tmi_ops.stack.dataset.people import add_groups, add_users
from tmi_ops.stack.dataset.plan import DatasetPlan
from tmi_ops.stack.dataset.surveys import add_response, add_surveys
from tmi_ops.stack.dataset.teams import add_teams_and_projects
from tmi_ops.stack.dataset.threat_models import add_threat_model
from tmi_ops.stack.dataset.world import Rows, World, new_rows

# A threat model is some 200 rows, so that a batch stays below 50 MB of memory.
THREAT_MODELS_A_BATCH = 50
INDEXED_ONE_IN = 4
INTEGRATED_ONE_IN = 5
SURVEYED_ONE_IN = 2
GLOBAL_ALIASES = "__global__"


def generate(plan: DatasetPlan) -> Iterator[Rows]:
    """The rows of `plan` by table: first the organisation, then threat models, a batch at a time."""
    world = World(plan.seed)
    yield _organisation(world, plan)
    for first in range(1, plan.threat_models + 1, THREAT_MODELS_A_BATCH):
        last = min(first + THREAT_MODELS_A_BATCH - 1, plan.threat_models)
        yield _threat_models(world, first, last)


def _organisation(world: World, plan: DatasetPlan) -> Rows:
    rows = new_rows()
    add_users(world, rows, plan.users)
    add_groups(world, rows, plan.groups)
    add_teams_and_projects(world, rows, plan.teams, plan.projects)
    add_surveys(world, rows, plan.surveys)
    add_settings(world, rows)
    add_denied_addresses(world, rows)
    add_system_audit(world, rows, plan.system_audit_entries)
    add_usability_feedback(world, rows, plan.usability_feedback)
    next_alias = plan.threat_models + 1
    rows["alias_counters"].append(
        {"parent_id": GLOBAL_ALIASES, "object_type": "threat_model", "next_alias": next_alias}
    )
    return rows


def _threat_models(world: World, first: int, last: int) -> Rows:
    rows = new_rows()
    for alias in range(first, last + 1):
        model = add_threat_model(world, rows, alias)
        add_collaboration(world, rows, model)
        add_chats(world, rows, model)
        # Taken in turn, not by chance, so that even the smallest data set has rows in every table.
        if alias % INDEXED_ONE_IN == 0:
            add_embeddings(world, rows, model)
        if alias % INTEGRATED_ONE_IN == 0:
            add_integrations(world, rows, model, with_addon=alias % (2 * INTEGRATED_ONE_IN) == 0)
        if alias % SURVEYED_ONE_IN == 0:
            add_response(world, rows, model)
    return rows
