"""Reconciles the cache after the database has changed: stale copies are dropped, revoked tokens kept.

The application never waits for the cache: if it does not answer, refuses us or takes too long, the step is deferred and
done later with `tmi-ops cache reconcile` or by resuming the run.

If the cache was lost as well, so is its list of revoked tokens, and those tokens would be accepted again. That list
cannot be recovered; a person must make old tokens invalid, and is told so before and after the run.
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
TITLE, REVOKED = "Cache reconciled", "Revoked tokens stay revoked"
CHANGE_KEY = (
    "change TMI's signing key before the application starts: that invalidates every token, and all users must sign in "
    "again"
)
# A million keys take a few seconds; the application is shut out meanwhile.
WITHIN_S = 60.0
_BATCH = 1000
_WAY_BACK = "not needed; the application refills the cache"


def steps_after_jump(settings: Settings, *, wanted: bool) -> tuple[Step, ...]:
    """For a database that was recovered to an earlier moment; empty without a cache, or if it is not wanted.

    Raises:
        SettingsError: the policy is invalid.
    """
    if settings.cache.sessions == "keep-sessions":
        return steps_after_rows(settings, wanted=wanted)
    return _steps(
        settings, "stale copies and sessions", "all users must sign in again; revoked tokens are kept", wanted=wanted
    )


def steps_after_rows(settings: Settings, *, wanted: bool) -> tuple[Step, ...]:
    """For restored rows; nobody has to sign in again. Otherwise as `steps_after_jump`."""
    return _steps(settings, "stale copies", "sessions and revoked tokens are kept", wanted=wanted)


def _steps(settings: Settings, dropped: str, then: str, *, wanted: bool) -> tuple[Step, ...]:
    Rules(settings.cache)
    if settings.redis is None or not wanted:
        return ()
    does = f"drop {dropped} from the cache at {settings.redis.describe()}; {then}"
    return (Step(name=CACHE_STEP, does=does, effect="irreversible", way_back=_WAY_BACK),)


def cache_notes(settings: Settings, *, wanted: bool) -> tuple[str, ...]:
    """Notes on the cache for the plan. Changes nothing."""
    if settings.redis is None:
        return (f"{NOT_CONFIGURED}, so none is reconciled.",) if wanted else ()
    if not wanted:
        return ()
    why = why_unanswered(settings.redis)
    if not why:
        return ()
    return (
        f"The cache at {settings.redis.describe()} does not answer now ({why}). If it still does not then, the step "
        "cache is deferred and the run continues without it.",
    )


def left_undone(settings: Settings, *, wanted: bool, policy: SessionPolicy | None = None) -> tuple[str, ...]:
    """What a person must do if there is a cache but the plan has no step for it."""
    return (f"Reconcile the cache: {_by_hand(policy)}.",) if settings.redis is not None and not wanted else ()


def revocation_notes(settings: Settings) -> tuple[str, ...]:
    """Notes on revoked tokens after a complete failure. Changes nothing."""
    revoked = settings.cache.revocations
    if not revoked:
        return ()
    if settings.redis is None:
        return (f"If TMI had a cache and it was lost too, the list of revoked tokens is lost: {CHANGE_KEY}.",)
    address, client = settings.redis.describe(), open_cache(settings.redis, retries=0)
    try:
        found = next((key for one in revoked for key in client.scan_iter(match=one, count=_BATCH)), None)
    except RedisError:
        return (f"If the cache was lost, so was its list of revoked tokens: {CHANGE_KEY}.",)
    finally:
        client.close()
    if found is not None:
        return ()
    return (
        f"The cache at {address} has no revoked tokens. Unless you are sure that it was not lost too, {CHANGE_KEY}.",
    )


def _after_jump(work: Work, *, may_be_new: bool) -> None:
    plan, done, restarted_at = _brought_in_line(work, work.settings.cache)
    revoked = _revoked(plan, restarted_at, may_be_new=may_be_new)
    by_pattern = tuple(f"{pattern}: {keys:,} dropped" for pattern, keys in done.dropped)
    kept = tuple(f"{one.pattern}: {one.keys:,} kept, {one.because}" for one in plan.decisions if one.action == "keep")
    detail = f"{done.keys:,} keys dropped, {plan.kept:,} kept."
    work.answer(Answer(title=TITLE, outcome="passed", detail=detail, findings=(*by_pattern, *kept)))
    work.answer(revoked)
    work.say(detail)
    if revoked.outcome != "passed":
        work.leave(f"{revoked.detail} Unless you are sure that none is missing, {CHANGE_KEY}.")


def _after_rows(work: Work) -> None:
    policy = work.settings.cache.model_copy(update={"sessions": "keep-sessions"})
    plan, done, _ = _brought_in_line(work, policy, by_hand="keep-sessions")
    work.say(f"{done.keys:,} stale copies dropped, {plan.kept:,} keys kept.")


def _brought_in_line(
    work: Work, policy: CachePolicy, by_hand: SessionPolicy | None = None
) -> tuple[Reconciliation, Reconciled, datetime | None]:
    """Raises:
    DeferredError: the cache could not be reconciled now.
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
        f"The cache was not reconciled: {what.rstrip('.')}. Until it is, the application may show stale data.",
        hint=f"later: {_by_hand(policy)}, or `tmi-ops recover resume {work.journal.run_id}`",
    )


def _left_out(work: Work) -> None:
    raise _deferred(work, "it was left out on request", None)


def _by_hand(policy: SessionPolicy | None) -> str:
    return f"`tmi-ops cache reconcile{f' --policy {policy}' if policy else ''}`"


def _revoked(plan: Reconciliation, restarted_at: datetime | None, *, may_be_new: bool) -> Answer:
    if may_be_new and not plan.revocations:
        detail = "The cache has no revoked tokens: either none was revoked, or the list was lost."
    elif restarted_at is not None:
        detail = (
            f"The cache was restarted at {restarted_at:%Y-%m-%d %H:%M:%S %Z} from a snapshot: tokens revoked after "
            "that snapshot are not in it."
        )
    else:
        return Answer(title=REVOKED, outcome="passed", detail=f"{plan.revocations:,} revocations kept.")
    return Answer(title=REVOKED, outcome="not run", detail=detail)


def _restarted_at(client: Redis, work: Work) -> datetime | None:
    """When the cache was started, if that was after the last recovered transaction and it has no append-only file."""
    from tmi_ops.runbooks.steps.recover import RecoveredCluster  # a rescue of rows need not load TMI's whole schema

    server, cluster = read_server(client), work.journal.known(RecoveredCluster)
    if server.append_only or cluster is None or cluster.last_commit_at is None:
        return None
    started = datetime.now(UTC) - timedelta(seconds=server.uptime_s)
    return started if started > cluster.last_commit_at else None


CACHE = Action(lambda work: _after_jump(work, may_be_new=False))
# After a complete failure, the cache that answers may be a new one.
CACHE_OR_NEW = Action(lambda work: _after_jump(work, may_be_new=True))
CACHE_OF_ROWS = Action(_after_rows)
LEFT_OUT = Action(_left_out)
