"""The cache, once the database has jumped back in time: what it knows of the lost time goes, revoked tokens stay."""

from __future__ import annotations

from tmi_ops.cache.connection import connected
from tmi_ops.cache.reconciliation import read_and_plan, reconcile
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step
from tmi_ops.settings import Settings

TITLE = "The cache"


def step_for(settings: Settings) -> Step:
    sessions = "sessions too, so that everybody signs in again"
    if settings.cache.sessions == "keep-sessions":
        sessions = "sessions stay"
    return Step(
        name="cache",
        does=f"drop what the cache at {settings.redis.describe()} knows of the lost time ({sessions}); revoked tokens "
        "stay revoked",
        effect="irreversible",
        way_back="none is needed: the application fills it anew",
    )


def _reconcile(work: Work) -> None:
    settings = work.settings
    with connected(settings.redis) as client:
        plan = read_and_plan(client, settings.cache, settings.redis.describe(), work.report)
        done = reconcile(plan, client, work.report)
    by_pattern = tuple(f"{pattern}: {keys:,} dropped" for pattern, keys in done.dropped)
    kept = tuple(f"{one.pattern}: {one.keys:,} kept, {one.because}" for one in plan.decisions if one.action == "keep")
    detail = f"{done.keys:,} keys were dropped, {plan.kept:,} kept."
    work.answer(Answer(title=TITLE, outcome="passed", detail=detail, findings=(*by_pattern, *kept)))
    work.say(detail)


CACHE = Action(_reconcile)
