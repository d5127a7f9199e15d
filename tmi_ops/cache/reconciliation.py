"""Reconciles the cache with a recovered database: planned from a census, then executed.

Recover the database first, then reconcile, then let the application in: a request that began before the recovery would
write stale data afterwards. Dropping a cached copy while the application runs is harmless: it reads the row again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from redis import Redis

from tmi_ops.cache.census import Census, take_census, walk
from tmi_ops.cache.rules import UNKNOWN, Action, Rule, Rules
from tmi_ops.cache.server import read_server
from tmi_ops.error_codes import Code
from tmi_ops.errors import CacheError
from tmi_ops.progress import Report
from tmi_ops.settings import CachePolicy, SessionPolicy


@dataclass(frozen=True)
class Decision:
    """What to do with the keys of one pattern, and why. `keys`: how many there were when the plan was made."""

    pattern: str
    action: Action
    keys: int
    because: str


@dataclass(frozen=True)
class Reconciliation:
    """A plan. It names patterns, not keys: keys written after planning are treated alike."""

    address: str
    policy: CachePolicy
    decisions: tuple[Decision, ...]

    @property
    def sessions(self) -> SessionPolicy:
        return self.policy.sessions

    @property
    def dropped(self) -> int:
        return self._sum(Action.DROP)

    @property
    def kept(self) -> int:
        return self._sum(Action.KEEP)

    @property
    def revocations(self) -> int:
        """The number of keys that record a revoked token or credential."""
        return sum(one.keys for one in self.decisions if one.pattern in self.policy.revocations)

    def of(self, action: Action) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if one.action is action)

    def _sum(self, action: Action) -> int:
        return sum(one.keys for one in self.of(action))


@dataclass(frozen=True)
class Reconciled:
    """The number of keys dropped, by pattern."""

    dropped: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> int:
        return sum(number for _, number in self.dropped)


def plan_reconciliation(census: Census, policy: CachePolicy, address: str) -> Reconciliation:
    """Decide for every pattern that has keys; unknown keys are kept. Pure."""
    known = (
        Decision(count.rule.pattern, count.rule.action, count.keys, count.rule.because)
        for count in census.counts
        if count.keys
    )
    unknown = (Decision(kind, Action.KEEP, keys, UNKNOWN) for kind, keys in census.unknown)
    return Reconciliation(address, policy, (*known, *unknown))


def read_and_plan(client: Redis, policy: CachePolicy, address: str, report: Report) -> Reconciliation:
    """Take a census and plan; changes nothing.

    Raises:
        CacheError: keys cannot be dropped here: the server is a replica, or one node of a cluster.
        SettingsError: the policy is not valid.
    """
    rules = Rules(policy)
    server = read_server(client)
    if server.is_replica:
        raise CacheError(
            f"{address} is a replica and takes no writes.",
            hint=f"set REDIS_HOST and REDIS_PORT to the primary, {server.primary}",
            code=Code.CACHE_REPLICA,
        )
    if server.is_clustered:
        raise CacheError(
            f"{address} is one node of a Redis Cluster and has only a part of the keys.",
            hint="run this with REDIS_HOST and REDIS_PORT set to each primary in turn, outside cluster mode",
            code=Code.CACHE_CLUSTER,
        )
    return plan_reconciliation(take_census(client, rules, report), policy, address)


def reconcile(plan: Reconciliation, client: Redis, report: Report) -> Reconciled:
    """Drop the keys that the plan drops, in batches. Safe to repeat, also after a crash.

    UNLINK frees memory in the background of the server, so nobody waits. No command ever names a key to keep.

    Raises:
        redis.RedisError: the cache failed; `connection.connected` makes it a CacheError.
    """
    rules = Rules(plan.policy)
    dropped: Counter[Rule] = Counter()
    with report.phase("Dropping keys", total=plan.dropped, unit="keys") as phase:
        for keys in walk(client):
            in_batch = _drop(client, keys, rules)
            dropped.update(in_batch)
            phase.advance(sum(in_batch.values()))
    return Reconciled(tuple((rule.pattern, dropped[rule]) for rule in rules.as_declared if dropped[rule]))


def _drop(client: Redis, keys: list[bytes], rules: Rules) -> dict[Rule, int]:
    doomed: dict[Rule, list[bytes]] = defaultdict(list)
    for key in keys:
        rule = rules.rule_of(key)
        if rule is not None and rule.action is Action.DROP:
            doomed[rule].append(key)
    if not doomed:
        return {}
    with client.pipeline(transaction=False) as pipeline:
        for names in doomed.values():
            pipeline.unlink(*names)
        return dict(zip(doomed, pipeline.execute(), strict=True))
