"""Bringing the cache in line with a database that has jumped in time: planned from a census, then done.

The jump comes first, then this, then the application is let in again: what a request that began before the jump writes
afterwards would be stale. A cached copy that is dropped while the application is at work is merely read anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from redis import Redis

from tmi_ops.cache.census import Census, take_census, walk
from tmi_ops.cache.rules import UNKNOWN, Action, Rule, Rules
from tmi_ops.cache.server import read_server
from tmi_ops.errors import CacheError
from tmi_ops.progress import Report
from tmi_ops.settings import CachePolicy, SessionPolicy


@dataclass(frozen=True)
class Decision:
    """What becomes of the keys of one pattern, and why. `keys` is how many there were when it was planned."""

    pattern: str
    action: Action
    keys: int
    because: str


@dataclass(frozen=True)
class Reconciliation:
    """A plan. It names patterns, not keys: what is written between planning and doing is treated alike."""

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
        """Keys that say that a token or a credential was revoked."""
        return sum(one.keys for one in self.decisions if one.pattern in self.policy.revocations)

    def of(self, action: Action) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if one.action is action)

    def _sum(self, action: Action) -> int:
        return sum(one.keys for one in self.of(action))


@dataclass(frozen=True)
class Reconciled:
    """What was done: how many keys were dropped, by pattern."""

    dropped: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> int:
        return sum(number for _, number in self.dropped)


def plan_reconciliation(census: Census, policy: CachePolicy, address: str) -> Reconciliation:
    """Decide for every pattern that has keys; unknown keys stay. Pure."""
    known = (
        Decision(count.rule.pattern, count.rule.action, count.keys, count.rule.because)
        for count in census.counts
        if count.keys
    )
    unknown = (Decision(kind, Action.KEEP, keys, UNKNOWN) for kind, keys in census.unknown)
    return Reconciliation(address, policy, (*known, *unknown))


def read_and_plan(client: Redis, policy: CachePolicy, address: str, report: Report) -> Reconciliation:
    """Look at the cache and plan; changes nothing.

    Raises:
        CacheError: keys cannot be dropped here: it is a replica, or one node of several.
        SettingsError: the policy is not one that can be followed.
    """
    rules = Rules(policy)
    server = read_server(client)
    if server.is_replica:
        raise CacheError(
            f"{address} is a replica: it takes no writes.",
            hint=f"set REDIS_HOST and REDIS_PORT to its primary, {server.primary}",
        )
    if server.is_clustered:
        raise CacheError(
            f"{address} is one node of a Redis Cluster: it sees a part of the keys only.",
            hint="run this with REDIS_HOST and REDIS_PORT set to each primary in turn, outside cluster mode",
        )
    return plan_reconciliation(take_census(client, rules, report), policy, address)


def reconcile(plan: Reconciliation, client: Redis, report: Report) -> Reconciled:
    """Drop what the plan drops, a batch at a time. May be repeated, also after a crash.

    UNLINK frees memory in the server's background, so nobody waits. Keys that are to stay are never named in a command.

    Raises:
        redis.RedisError: the cache failed; `connection.connected` says it in plain words.
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
