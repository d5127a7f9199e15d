"""Checks of the cache: facts about its server and its keys -> findings, the worst first.

The memory limits are the TMI server's own. Whatever makes a revoked token valid again is the most severe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from redis import Redis

from tmi_ops.cache.census import Census, KeyCount, take_census
from tmi_ops.cache.rules import Rules
from tmi_ops.cache.server import CacheServer, read_server
from tmi_ops.checks.finding import Finding, Severity, advise, worst, worst_first
from tmi_ops.profile.cache_keys import KeyPurpose
from tmi_ops.progress import Report
from tmi_ops.settings import CachePolicy
from tmi_ops.text import format_duration, format_size

MEMORY_WARNING, MEMORY_CRITICAL = 0.75, 0.90
SLOW_PING_MS = 100
NO_EVICTION = "noeviction"


@dataclass(frozen=True)
class CacheCheck:
    """The facts, and the findings."""

    address: str
    server: CacheServer
    census: Census
    findings: tuple[Finding, ...]

    def at(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity is severity)

    @property
    def worst(self) -> Severity | None:
        """None if there are no findings."""
        return worst(self.findings)


def check_cache(client: Redis, policy: CachePolicy, address: str, report: Report) -> CacheCheck:
    """Read the facts of the server and walk over its keys once. Changes nothing.

    Raises:
        redis.RedisError: the cache failed; `connection.connected` makes it a CacheError.
        SettingsError: the policy is not valid.
    """
    server = read_server(client)
    census = take_census(client, Rules(policy), report)
    return CacheCheck(address, server, census, find_all(server, census))


def find_all(server: CacheServer, census: Census) -> tuple[Finding, ...]:
    """Judge. Pure."""
    found = [*_server(server), *_memory(server), *_persistence(server), *_keys(census)]
    return worst_first(found)


def _server(server: CacheServer) -> Iterator[Finding]:
    if server.ping_ms >= SLOW_PING_MS:
        yield _found(
            Severity.WARNING,
            "latency",
            f"the server took {server.ping_ms:.0f} ms to answer",
            "redis-cli SLOWLOG GET 10",
        )
    if server.is_replica:
        yield _found(
            Severity.WARNING,
            "role",
            f"the server is a read-only replica of {server.primary}",
            "set REDIS_HOST and REDIS_PORT to the primary: TMI and a recovery must write to the cache",
        )
    if server.is_clustered:
        yield _found(Severity.WARNING, "role", "the server is one node of a cluster: only its own keys are checked")


def _memory(server: CacheServer) -> Iterator[Finding]:
    if server.max_memory is None:
        yield _found(
            Severity.NOTICE,
            "memory",
            f"{format_size(server.used_memory)} in use, no maxmemory: it may grow until the host runs out of memory",
            "redis-cli CONFIG SET maxmemory 512mb  # and set it in redis.conf",
        )
    else:
        share = server.used_memory / server.max_memory
        if share >= MEMORY_WARNING:
            yield _found(
                Severity.CRITICAL if share >= MEMORY_CRITICAL else Severity.WARNING,
                "memory",
                f"{share:.0%} of maxmemory ({format_size(server.max_memory)}) in use",
                "raise maxmemory: when it is full, sign-ins and revocations fail",
            )
    no_eviction = f"redis-cli CONFIG SET maxmemory-policy {NO_EVICTION}  # and set it in redis.conf"
    if server.evicted and server.eviction_policy != NO_EVICTION:
        yield _found(
            Severity.CRITICAL,
            "evictions",
            f"{server.evicted:,} keys were evicted since the server started: revoked tokens among them are valid again",
            no_eviction,
        )
    elif server.max_memory is not None and server.eviction_policy != NO_EVICTION:
        yield _found(
            Severity.WARNING,
            "evictions",
            f"maxmemory-policy is {server.eviction_policy}: a full cache may evict revoked tokens",
            no_eviction,
        )


def _persistence(server: CacheServer) -> Iterator[Finding]:
    append_only = "redis-cli CONFIG SET appendonly yes  # and set it in redis.conf"
    if not server.log_ok:
        yield _found(
            Severity.CRITICAL,
            "persistence",
            "the server cannot write its append-only file",
            "check the server's log and disk",
        )
    if not server.snapshot_ok:
        yield _found(
            Severity.CRITICAL,
            "persistence",
            "the last snapshot failed; by default, the server then refuses writes",
            "check the server's log and disk; then run redis-cli BGSAVE",
        )
    if server.persists is False:
        yield _found(
            Severity.WARNING,
            "persistence",
            "off: a restart loses revoked tokens, and signs everybody out",
            append_only,
        )
    elif not server.append_only and server.persists:
        yield _found(
            Severity.NOTICE,
            "persistence",
            f"snapshots only, {server.unsaved_changes:,} changes since the last: a crash loses recent revocations",
            append_only,
        )


def _keys(census: Census) -> Iterator[Finding]:
    for count in census.counts:
        yield from _lives(count)
    if census.unknown_keys:
        kinds = [f"{kind} ({keys:,})" for kind, keys in census.unknown[:5]]
        more = f" and {len(census.unknown) - 5} more kinds" if len(census.unknown) > 5 else ""
        yield _found(
            Severity.NOTICE,
            "unknown keys",
            f"{census.unknown_keys:,} keys of no known pattern: {', '.join(kinds)}{more}",
            "set TMI_OPS_CACHE_DROP to the patterns that a recovery should drop; it keeps all others",
        )


def _lives(count: KeyCount) -> Iterator[Finding]:
    if count.rule.declared is None:
        return
    limit = format_duration(count.rule.declared.longest_life.total_seconds())
    example = f", for example {count.example}" if count.example else ""
    copies = count.rule.declared.purpose is KeyPurpose.COPY
    advice = f"redis-cli EXPIRE <key> {count.rule.declared.longest_life.total_seconds():.0f}  # and find what wrote it"
    if count.for_ever:
        consequence = ": these copies never expire and may be stale" if copies else ": they never expire"
        yield _found(
            Severity.WARNING,
            count.rule.pattern,
            f"{count.for_ever:,} of {count.keys:,} have no TTL{consequence}{example}",
            advice,
        )
    if count.too_long:
        longest = format_duration(count.longest_ms / 1000)
        yield _found(
            Severity.WARNING,
            count.rule.pattern,
            f"{count.too_long:,} of {count.keys:,} have a longer TTL than TMI's {limit}: up to {longest}{example}",
            advice,
        )


def _found(severity: Severity, subject: str, what: str, *advice: str) -> Finding:
    return Finding(severity, subject, what, advice=advise(*advice))
