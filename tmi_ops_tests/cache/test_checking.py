"""What is wrong with a cache is found, and what is well is left in peace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis

from tmi_ops.cache.census import UNKNOWN_KINDS, Census
from tmi_ops.cache.checking import CacheCheck, check_cache, find_all
from tmi_ops.cache.server import CacheServer
from tmi_ops.checks.finding import Finding, Severity
from tmi_ops.progress import SilentReport
from tmi_ops.settings import CachePolicy

MEGABYTE = 1_000_000
WELL = CacheServer(
    name="redis",
    version="7.2.4",
    uptime_s=3600,
    ping_ms=0.4,
    clients=3,
    used_memory=100 * MEGABYTE,
    max_memory=512 * MEGABYTE,
    eviction_policy="noeviction",
    evicted=0,
    hit_ratio=0.9,
    append_only=True,
    log_ok=True,
    snapshots="3600 1",
    snapshot_ok=True,
    unsaved_changes=0,
)
NO_KEYS = Census((), ())


def check(client: Redis) -> CacheCheck:
    return check_cache(client, CachePolicy(), "the cache", SilentReport())


def about(seen: CacheCheck, subject: str) -> Finding:
    return next(finding for finding in seen.findings if finding.subject == subject)


def test_a_cache_that_is_well_has_no_findings() -> None:
    assert find_all(WELL, NO_KEYS) == ()


@pytest.mark.parametrize(
    ("change", "severity", "subject", "said"),
    [
        ({"max_memory": None}, Severity.NOTICE, "memory", "no maxmemory"),
        ({"used_memory": 400 * MEGABYTE}, Severity.WARNING, "memory", "78%"),
        ({"used_memory": 470 * MEGABYTE}, Severity.CRITICAL, "memory", "92%"),
        ({"eviction_policy": "allkeys-lru"}, Severity.WARNING, "evictions", "evict revoked tokens"),
        ({"eviction_policy": "allkeys-lru", "evicted": 7}, Severity.CRITICAL, "evictions", "7 keys were evicted"),
        ({"append_only": False, "snapshots": ""}, Severity.WARNING, "persistence", "signs everybody out"),
        ({"append_only": False}, Severity.NOTICE, "persistence", "snapshots only"),
        ({"snapshot_ok": False}, Severity.CRITICAL, "persistence", "refuses writes"),
        ({"log_ok": False}, Severity.CRITICAL, "persistence", "append-only file"),
        ({"is_replica": True, "primary": "cache-0:6379"}, Severity.WARNING, "role", "cache-0:6379"),
        ({"is_clustered": True}, Severity.WARNING, "role", "cluster"),
        ({"ping_ms": 250.0}, Severity.WARNING, "latency", "250 ms"),
    ],
)
def test_each_weakness_of_the_server_is_found_alone(
    change: dict[str, object], severity: Severity, subject: str, said: str
) -> None:
    (finding,) = find_all(replace(WELL, **change), NO_KEYS)  # type: ignore[arg-type]
    assert (finding.severity, finding.subject) == (severity, subject)
    assert said in finding.what


def test_a_server_that_does_not_say_how_it_persists_is_not_blamed() -> None:
    assert find_all(replace(WELL, append_only=False, snapshots=None), NO_KEYS) == ()


def test_the_worst_comes_first() -> None:
    found = find_all(replace(WELL, max_memory=None, log_ok=False, ping_ms=200.0), NO_KEYS)
    assert [finding.severity for finding in found] == list(reversed(Severity))


def test_keys_that_live_too_long_or_for_ever_are_found_and_others_are_not(client: Redis) -> None:
    client.set("cache:threat:forever", "value")
    client.set("cache:auth:long", "value", ex=timedelta(hours=2))
    client.set("cache:note:well", "value", ex=timedelta(minutes=5))
    client.set("acme:1", "a stranger's, for ever")
    seen = check(client)
    assert "1 of 1 have no TTL" in about(seen, "cache:threat:*").what
    assert "cache:threat:forever" in about(seen, "cache:threat:*").what
    assert "EXPIRE <key> 300" in about(seen, "cache:threat:*").advice.command[0]
    assert "a longer TTL than TMI's 15 min: up to " in about(seen, "cache:auth:*").what
    assert {finding.subject for finding in seen.at(Severity.WARNING)} == {"cache:threat:*", "cache:auth:*"}
    assert "acme:* (1)" in about(seen, "unknown keys").what


def test_names_that_open_a_door_are_never_shown(client: Redis) -> None:
    secrets = ["refresh_token:s3cr3t", "session:s3cr3t:1", "cache:user:email:s3cr3t@example.com", "s3cr3t-s3cr3t"]
    for key in secrets:
        client.set(key, "value")
    seen = check(client)
    assert len(seen.findings) >= len(secrets)
    assert "s3cr3t-s" not in repr(seen)
    assert "s3cr3t:1" not in repr(seen)
    assert "s3cr3t@" not in repr(seen)
    assert "_token:s" not in repr(seen)


def test_however_many_kinds_of_strangers_there_are_few_are_told_apart(client: Redis) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for i in range(3 * UNKNOWN_KINDS):
            pipeline.set(f"kind{i}:1", "value")
        pipeline.execute()
    census = check(client).census
    assert census.unknown_keys == 3 * UNKNOWN_KINDS
    assert len(census.unknown) == UNKNOWN_KINDS + 1


@pytest.fixture
def small(client: Redis) -> Iterator[Redis]:
    """A server that is full, and makes room by forgetting."""
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + MEGABYTE)
    yield client
    client.config_set("maxmemory", 0)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_resetstat()


def test_a_full_server_that_forgets_is_critical(small: Redis) -> None:
    for i in range(2000):
        small.set(f"blacklist:token:{i}", "x" * 2000, ex=60)
    seen = check(small)
    assert seen.worst is Severity.CRITICAL
    assert "valid again" in about(seen, "evictions").what
    assert seen.server.max_memory is not None


def test_a_real_server_says_what_it_is(client: Redis) -> None:
    server = check(client).server
    assert (server.name, server.append_only, server.persists) == ("valkey", True, True)
    assert server.used_memory > 0
    assert server.max_memory is None
