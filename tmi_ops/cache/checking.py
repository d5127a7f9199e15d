"""Is the cache well? Facts of its server and of its keys -> findings, the worst first.

Limits of memory are the TMI server's own. What is judged hardest is whatever lets a revoked token be valid again.
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
from tmi_ops.words import size_words, time_words

MEMORY_WARNING, MEMORY_CRITICAL = 0.75, 0.90
SLOW_PING_MS = 100
NO_EVICTION = "noeviction"


@dataclass(frozen=True)
class CacheCheck:
    """Everything that was seen, and what it means."""

    address: str
    server: CacheServer
    census: Census
    findings: tuple[Finding, ...]

    def at(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity is severity)

    @property
    def worst(self) -> Severity | None:
        """None where all is well."""
        return worst(self.findings)


def check_cache(client: Redis, policy: CachePolicy, address: str, report: Report) -> CacheCheck:
    """Look at the server and walk over its keys once. Changes nothing.

    Raises:
        redis.RedisError: the cache failed; `connection.connected` says it in plain words.
        SettingsError: the policy is not one that can be followed.
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
            Severity.WARNING, "latency", f"it took {server.ping_ms:.0f} ms to answer", "redis-cli SLOWLOG GET 10"
        )
    if server.is_replica:
        yield _found(
            Severity.WARNING,
            "role",
            f"it is a replica of {server.primary} and takes no writes",
            "set REDIS_HOST and REDIS_PORT to its primary: TMI writes to its cache, and a recovery has to",
        )
    if server.is_clustered:
        yield _found(Severity.WARNING, "role", "it is a node of a cluster: only its own keys are seen here")


def _memory(server: CacheServer) -> Iterator[Finding]:
    if server.max_memory is None:
        yield _found(
            Severity.NOTICE,
            "memory",
            f"{size_words(server.used_memory)} in use, without a limit: it may grow until the host has none left",
            "redis-cli CONFIG SET maxmemory 512mb  # and in its redis.conf",
        )
    else:
        share = server.used_memory / server.max_memory
        if share >= MEMORY_WARNING:
            yield _found(
                Severity.CRITICAL if share >= MEMORY_CRITICAL else Severity.WARNING,
                "memory",
                f"{share:.0%} of {size_words(server.max_memory)} in use",
                "raise maxmemory: when it is full, sign-ins and revocations fail",
            )
    no_eviction = f"redis-cli CONFIG SET maxmemory-policy {NO_EVICTION}  # and in its redis.conf"
    if server.evicted and server.eviction_policy != NO_EVICTION:
        yield _found(
            Severity.CRITICAL,
            "evictions",
            f"{server.evicted:,} keys were evicted since its start: revoked tokens among them are valid again",
            no_eviction,
        )
    elif server.max_memory is not None and server.eviction_policy != NO_EVICTION:
        yield _found(
            Severity.WARNING,
            "evictions",
            f"the policy {server.eviction_policy} lets a full cache forget revoked tokens",
            no_eviction,
        )


def _persistence(server: CacheServer) -> Iterator[Finding]:
    append_only = "redis-cli CONFIG SET appendonly yes  # and in its redis.conf"
    if not server.log_ok:
        yield _found(
            Severity.CRITICAL, "persistence", "it cannot write its append-only file", "look at its log, and its disk"
        )
    if not server.snapshot_ok:
        yield _found(
            Severity.CRITICAL,
            "persistence",
            "its last snapshot failed; by default it then refuses writes",
            "look at its log, and its disk; then redis-cli BGSAVE",
        )
    if server.persists is False:
        yield _found(
            Severity.WARNING,
            "persistence",
            "off: a restart forgets which tokens were revoked, and signs everybody out",
            append_only,
        )
    elif not server.append_only and server.persists:
        yield _found(
            Severity.NOTICE,
            "persistence",
            f"snapshots alone, {server.unsaved_changes:,} changes since the last: a crash forgets new revocations",
            append_only,
        )


def _keys(census: Census) -> Iterator[Finding]:
    for count in census.counts:
        yield from _lives(count)
    if census.unknown_keys:
        kinds = [f"{kind} ({keys:,})" for kind, keys in census.unknown[:5]]
        more = f" and {len(census.unknown) - 5} kinds more" if len(census.unknown) > 5 else ""
        yield _found(
            Severity.NOTICE,
            "unknown keys",
            f"{census.unknown_keys:,} not known to be the application's: {', '.join(kinds)}{more}",
            "a recovery keeps them; TMI_OPS_CACHE_DROP names those that it should drop",
        )


def _lives(count: KeyCount) -> Iterator[Finding]:
    if count.rule.declared is None:
        return
    limit = time_words(count.rule.declared.longest_life.total_seconds())
    example = f", for example {count.example}" if count.example else ""
    copies = count.rule.declared.purpose is KeyPurpose.COPY
    advice = f"redis-cli EXPIRE <key> {count.rule.declared.longest_life.total_seconds():.0f}  # or look who wrote it"
    if count.for_ever:
        consequence = ": what is read from them is never read anew" if copies else ": they are never cleared away"
        yield _found(
            Severity.WARNING,
            count.rule.pattern,
            f"{count.for_ever:,} of {count.keys:,} have no TTL{consequence}{example}",
            advice,
        )
    if count.too_long:
        longest = time_words(count.longest_ms / 1000)
        yield _found(
            Severity.WARNING,
            count.rule.pattern,
            f"{count.too_long:,} of {count.keys:,} live longer than TMI's {limit}: up to {longest}{example}",
            advice,
        )


def _found(severity: Severity, subject: str, what: str, *advice: str) -> Finding:
    return Finding(severity, subject, what, advice=advise(*advice))
