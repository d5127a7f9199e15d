"""The cache, once the database has jumped back in time: what it knows of the lost time goes, revoked tokens stay.

Where it was lost as well, so is the list of revoked tokens, and they would open the door again. Nothing of ours brings
that list back; that no token of before is taken any more is a person's to do, and is said before and after.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from tmi_ops.cache.connection import connected, open_cache
from tmi_ops.cache.keys import ANY_REVOCATION
from tmi_ops.cache.reconciliation import Reconciliation, read_and_plan, reconcile
from tmi_ops.cache.server import read_server
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step
from tmi_ops.runbooks.steps.recover import RecoveredCluster
from tmi_ops.settings import Settings

TITLE, REVOKED = "The cache", "Revoked tokens stay revoked"
CHANGE_KEY = "change TMI's signing key before the application starts: every token ends, and everybody signs in again"
_BATCH = 1000


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


def revocation_notes(settings: Settings) -> tuple[str, ...]:
    """What a person should know of the revoked tokens when much is lost, a sentence each. Changes nothing."""
    address, client = settings.redis.describe(), open_cache(settings.redis, retries=0)
    try:
        found = next(iter(client.scan_iter(match=ANY_REVOCATION, count=_BATCH)), None)
    except RedisError:
        return (
            f"The cache at {address} does not answer. A new one may be empty, but must be there for the step cache. "
            f"With the old one its list of revoked tokens is lost: {CHANGE_KEY}.",
        )
    finally:
        client.close()
    if found is not None:
        return ()
    return (
        f"The cache at {address} knows of no revoked token. Unless you are sure that it was not lost too, "
        f"{CHANGE_KEY}.",
    )


def _reconcile(work: Work, *, may_be_new: bool) -> None:
    settings = work.settings
    with connected(settings.redis) as client:
        plan = read_and_plan(client, settings.cache, settings.redis.describe(), work.report)
        done = reconcile(plan, client, work.report)
        revoked = _revoked(plan, _restarted_at(client, work), may_be_new=may_be_new)
    by_pattern = tuple(f"{pattern}: {keys:,} dropped" for pattern, keys in done.dropped)
    kept = tuple(f"{one.pattern}: {one.keys:,} kept, {one.because}" for one in plan.decisions if one.action == "keep")
    detail = f"{done.keys:,} keys were dropped, {plan.kept:,} kept."
    work.answer(Answer(title=TITLE, outcome="passed", detail=detail, findings=(*by_pattern, *kept)))
    work.answer(revoked)
    work.say(detail)
    if revoked.outcome != "passed":
        work.leave(f"{revoked.detail} Unless you are sure that none is missing, {CHANGE_KEY}.")


def _revoked(plan: Reconciliation, restarted_at: datetime | None, *, may_be_new: bool) -> Answer:
    if may_be_new and not plan.revocations:
        detail = "The cache knows of no revoked token: none was revoked, or the list of them was lost."
    elif restarted_at is not None:
        detail = (
            f"The cache was started anew at {restarted_at:%Y-%m-%d %H:%M:%S %Z}, from a snapshot: what was revoked "
            "after that snapshot is not in it."
        )
    else:
        return Answer(title=REVOKED, outcome="passed", detail=f"{plan.revocations:,} revocations were kept.")
    return Answer(title=REVOKED, outcome="not run", detail=detail)


def _restarted_at(client: Redis, work: Work) -> datetime | None:
    """When the cache was started, where that was after the last transaction that was recovered and it keeps no log."""
    server, cluster = read_server(client), work.journal.known(RecoveredCluster)
    if server.append_only or cluster is None or cluster.last_commit_at is None:
        return None
    started = datetime.now(UTC) - timedelta(seconds=server.uptime_s)
    return started if started > cluster.last_commit_at else None


CACHE = Action(lambda work: _reconcile(work, may_be_new=False))
# After a complete failure the cache that answers may not be the one that was.
CACHE_OR_NEW = Action(lambda work: _reconcile(work, may_be_new=True))
