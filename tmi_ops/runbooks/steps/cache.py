"""The cache, once the database has changed under it: stale copies go, revoked tokens stay.

The application never waits for a cache: one that does not answer, refuses us or takes too long defers the step. It is
told then, and done later by `tmi-ops cache reconcile` or by resuming the run.

Where the cache was lost as well, so is the list of revoked tokens, and they would open the door again. Nothing of ours
brings that list back; that no token of before is taken any more is a person's to do, and is said before and after.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from tmi_ops.cache.connection import NOT_CONFIGURED, connected, open_cache, why_unanswered
from tmi_ops.cache.reconciliation import Reconciled, Reconciliation, read_and_plan, reconcile
from tmi_ops.cache.rules import Rules
from tmi_ops.cache.server import read_server
from tmi_ops.errors import CacheError
from tmi_ops.runbooks.execution import Action, DeferredError, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step
from tmi_ops.settings import CachePolicy, SessionPolicy, Settings

CACHE_STEP = "cache"
TITLE, REVOKED = "The cache", "Revoked tokens stay revoked"
CHANGE_KEY = "change TMI's signing key before the application starts: every token ends, and everybody signs in again"
# A million keys take a few seconds; the application is kept out meanwhile.
WITHIN_S = 60.0
_BATCH = 1000
_WAY_BACK = "none is needed: the application fills it anew"


def steps_after_jump(settings: Settings, *, wanted: bool) -> tuple[Step, ...]:
    """For a database that has jumped back in time as a whole; none where there is no cache, or it is not wanted.

    Raises:
        SettingsError: the policy is not one that can be followed.
    """
    sessions = "sessions too, so that everybody signs in again"
    if settings.cache.sessions == "keep-sessions":
        sessions = "sessions stay"
    return _steps(settings, f"knows of the lost time ({sessions}); revoked tokens stay revoked", wanted=wanted)


def steps_after_rows(settings: Settings, *, wanted: bool) -> tuple[Step, ...]:
    """For rows that came back; time did not jump, so nobody has to sign in again. Otherwise as `steps_after_jump`."""
    return _steps(settings, "holds of stale copies; sessions and revoked tokens stay", wanted=wanted)


def _steps(settings: Settings, what: str, *, wanted: bool) -> tuple[Step, ...]:
    Rules(settings.cache)
    if settings.redis is None or not wanted:
        return ()
    does = f"drop what the cache at {settings.redis.describe()} {what}"
    return (Step(name=CACHE_STEP, does=does, effect="irreversible", way_back=_WAY_BACK),)


def cache_notes(settings: Settings, *, wanted: bool) -> tuple[str, ...]:
    """What a person should know of the cache before saying yes, a sentence each. Changes nothing."""
    if settings.redis is None:
        return (f"{NOT_CONFIGURED}, so none is brought in line.",) if wanted else ()
    if not wanted:
        return ()
    why = why_unanswered(settings.redis)
    if not why:
        return ()
    return (
        f"The cache at {settings.redis.describe()} does not answer now ({why}). If that stays so, the step cache is "
        "deferred and the run goes on without it.",
    )


def left_undone(settings: Settings, *, wanted: bool, policy: SessionPolicy | None = None) -> tuple[str, ...]:
    """What is left to a person where the step is not part of the plan though there is a cache, a sentence each."""
    return (f"Bring the cache in line: {_by_hand(policy)}.",) if settings.redis is not None and not wanted else ()


def revocation_notes(settings: Settings) -> tuple[str, ...]:
    """What a person should know of the revoked tokens when much is lost, a sentence each. Changes nothing."""
    revoked = settings.cache.revocations
    if not revoked:
        return ()
    if settings.redis is None:
        return (f"If TMI has a cache and it was lost too, its list of revoked tokens is lost: {CHANGE_KEY}.",)
    address, client = settings.redis.describe(), open_cache(settings.redis, retries=0)
    try:
        found = next((key for one in revoked for key in client.scan_iter(match=one, count=_BATCH)), None)
    except RedisError:
        return (f"With the old cache its list of revoked tokens is lost: {CHANGE_KEY}.",)
    finally:
        client.close()
    if found is not None:
        return ()
    return (
        f"The cache at {address} knows of no revoked token. Unless you are sure that it was not lost too, "
        f"{CHANGE_KEY}.",
    )


def _after_jump(work: Work, *, may_be_new: bool) -> None:
    plan, done, restarted_at = _brought_in_line(work, work.settings.cache)
    revoked = _revoked(plan, restarted_at, may_be_new=may_be_new)
    by_pattern = tuple(f"{pattern}: {keys:,} dropped" for pattern, keys in done.dropped)
    kept = tuple(f"{one.pattern}: {one.keys:,} kept, {one.because}" for one in plan.decisions if one.action == "keep")
    detail = f"{done.keys:,} keys were dropped, {plan.kept:,} kept."
    work.answer(Answer(title=TITLE, outcome="passed", detail=detail, findings=(*by_pattern, *kept)))
    work.answer(revoked)
    work.say(detail)
    if revoked.outcome != "passed":
        work.leave(f"{revoked.detail} Unless you are sure that none is missing, {CHANGE_KEY}.")


def _after_rows(work: Work) -> None:
    policy = work.settings.cache.model_copy(update={"sessions": "keep-sessions"})
    plan, done, _ = _brought_in_line(work, policy, by_hand="keep-sessions")
    work.say(f"{done.keys:,} stale copies were dropped, {plan.kept:,} keys kept")


def _brought_in_line(
    work: Work, policy: CachePolicy, by_hand: SessionPolicy | None = None
) -> tuple[Reconciliation, Reconciled, datetime | None]:
    """Raises:
    DeferredError: the cache could not be brought in line now.
    """
    redis = work.settings.redis
    if redis is None:
        raise _deferred(work, f"{NOT_CONFIGURED} here.", by_hand)
    try:
        with connected(redis, within_s=WITHIN_S) as client:
            plan = read_and_plan(client, policy, redis.describe(), work.report)
            done = reconcile(plan, client, work.report)
            return plan, done, _restarted_at(client, work)
    except CacheError as error:
        raise _deferred(work, error.message, by_hand) from error


def _deferred(work: Work, what: str, policy: SessionPolicy | None) -> DeferredError:
    return DeferredError(
        f"The cache was not brought in line: {what.rstrip('.')}. Until it is, the application may show copies of what "
        "is not there any more.",
        hint=f"later: {_by_hand(policy)}, or `tmi-ops recover resume {work.journal.run_id}`",
    )


def _left_out(work: Work) -> None:
    raise _deferred(work, "you asked to leave it out", None)


def _by_hand(policy: SessionPolicy | None) -> str:
    return f"`tmi-ops cache reconcile{f' --policy {policy}' if policy else ''}`"


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
    from tmi_ops.runbooks.steps.recover import RecoveredCluster  # a rescue of rows need not load TMI's whole schema

    server, cluster = read_server(client), work.journal.known(RecoveredCluster)
    if server.append_only or cluster is None or cluster.last_commit_at is None:
        return None
    started = datetime.now(UTC) - timedelta(seconds=server.uptime_s)
    return started if started > cluster.last_commit_at else None


CACHE = Action(lambda work: _after_jump(work, may_be_new=False))
# After a complete failure the cache that answers may not be the one that was.
CACHE_OR_NEW = Action(lambda work: _after_jump(work, may_be_new=True))
CACHE_OF_ROWS = Action(_after_rows)
LEFT_OUT = Action(_left_out)
