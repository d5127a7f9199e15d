"""A cache in which only what the database does not know is left, proven on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tmi_ops.cache.census import BATCH
from tmi_ops.cache.connection import connected
from tmi_ops.cache.reconciliation import Reconciled, Reconciliation, read_and_plan, reconcile
from tmi_ops.cache.rules import Action
from tmi_ops.error_codes import Code
from tmi_ops.errors import CacheError
from tmi_ops.progress import SilentReport
from tmi_ops.settings import CachePolicy, RedisSettings
from tmi_ops_tests.certificates import make_authority
from tmi_ops_tests.tcp_relay import tcp_relay

REPORT = SilentReport()
STALE = ["cache:threat_model:1", "cache:user:1", "tmi:settings:smtp.password", "temp:export:1"]
SIGNED_IN = ["session:1:2", "refresh_token:1"]
STAYS = ["blacklist:token:1", "blacklist:credential:1", "api:ratelimit:minute:1", "pkce:1", "acme:1"]


def plan(client: Redis, policy: CachePolicy | None = None) -> Reconciliation:
    return read_and_plan(client, policy or CachePolicy(), "the cache", REPORT)


def plan_and_do(client: Redis, policy: CachePolicy | None = None) -> Reconciled:
    return reconcile(plan(client, policy), client, REPORT)


def fill(client: Redis) -> None:
    for key in (*STALE, *SIGNED_IN, *STAYS):
        client.set(key, "value", ex=60)


def names(client: Redis) -> set[str]:
    return {key.decode() for key in client.scan_iter()}


def test_stale_reads_and_sessions_go_and_revoked_tokens_stay(client: Redis) -> None:
    fill(client)
    done = plan_and_do(client)
    assert names(client) == set(STAYS)
    assert dict(done.dropped) == {
        "cache:threat_model:*": 1,
        "cache:user:*": 1,
        "tmi:settings:*": 1,
        "temp:export:*": 1,
        "session:*": 1,
        "refresh_token:*": 1,
    }
    assert client.ttl("blacklist:token:1") > 0, "its life is as it was"


def test_who_is_signed_in_stays_so_where_the_policy_says_so(client: Redis) -> None:
    fill(client)
    plan_and_do(client, CachePolicy(sessions="keep-sessions"))
    assert names(client) == {*SIGNED_IN, *STAYS}


def test_a_plan_tells_what_would_go_and_why_and_changes_nothing(client: Redis) -> None:
    fill(client)
    made = plan(client)
    assert (made.dropped, made.kept) == (len(STALE + SIGNED_IN), len(STAYS))
    assert {one.pattern: one.because for one in made.of(Action.KEEP)}["acme:*"].startswith("of no known pattern")
    assert all(one.because for one in made.decisions)
    assert len(names(client)) == len(STALE + SIGNED_IN + STAYS)


def test_repeated_it_has_nothing_left_to_do(client: Redis) -> None:
    fill(client)
    plan_and_do(client)
    assert plan(client).dropped == 0
    assert plan_and_do(client).keys == 0


def test_only_the_database_that_is_named_is_touched(client: Redis, redis: RedisSettings) -> None:
    with connected(redis.model_copy(update={"db": redis.db + 1})) as neighbour:
        neighbour.set("cache:user:1", "the neighbour's", ex=60)
        client.set("cache:user:1", "ours", ex=60)
        plan_and_do(client)
        assert neighbour.get("cache:user:1") == b"the neighbour's"
        neighbour.flushdb()


def test_names_that_are_no_text_are_no_trouble(client: Redis) -> None:
    client.set(b"cache:user:\xff\x00\xfe", "value", ex=60)
    client.set(b"\xff\xfe", "a stranger's")
    assert plan_and_do(client).keys == 1
    assert list(client.scan_iter()) == [b"\xff\xfe"]


@pytest.mark.slow
def test_every_key_of_many_is_found_in_batches_and_never_all_at_once(client: Redis) -> None:
    number = 12 * BATCH
    with client.pipeline(transaction=False) as pipeline:
        for i in range(number):
            pipeline.set(f"cache:threat:{i}", "value", ex=60)
            pipeline.set(f"blacklist:token:{i}", "value", ex=60)
        pipeline.execute()
    client.config_resetstat()
    done = plan_and_do(client)
    commands = client.info("commandstats")
    assert done.keys == number
    assert client.dbsize() == number
    assert {"cmdstat_keys", "cmdstat_flushall", "cmdstat_flushdb", "cmdstat_del"}.isdisjoint(commands)
    assert commands["cmdstat_scan"]["calls"] >= 2 * (2 * number // BATCH)
    assert commands["cmdstat_unlink"]["calls"] >= number // BATCH


def test_what_was_stale_goes_and_revocations_stay_while_the_application_writes(
    client: Redis, redis: RedisSettings
) -> None:
    stale = [f"cache:threat:{i}" for i in range(3 * BATCH)]
    with client.pipeline(transaction=False) as pipeline:
        for key in stale:
            pipeline.set(key, "from before", ex=60)
        pipeline.execute()
    written: list[str] = []
    ended = threading.Event()

    def write() -> None:
        with connected(redis) as application:
            while not ended.is_set():
                key = f"{len(written)}"
                application.set(f"cache:note:{key}", "fresh", ex=60)
                application.set(f"blacklist:token:{key}", "revoked", ex=60)
                written.append(key)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        plan_and_do(client)
    finally:
        ended.set()
        writer.join()
    assert client.exists(*stale) == 0
    assert written
    assert client.exists(*(f"blacklist:token:{key}" for key in written)) == len(written)


@pytest.fixture
def replica(client: Redis) -> Iterator[Redis]:
    client.replicaof("127.0.0.1", 1)
    yield client
    client.replicaof("NO", "ONE")


def test_a_replica_is_refused_and_its_primary_named(replica: Redis) -> None:
    with pytest.raises(CacheError) as caught:
        plan(replica)
    assert caught.value.code is Code.CACHE_REPLICA
    assert "127.0.0.1:1" in caught.value.hint


def test_a_cache_that_is_away_is_said_to_be_away_and_may_be_tried_again(redis: RedisSettings) -> None:
    away = redis.model_copy(update={"port": 1})
    with pytest.raises(CacheError, match="could not be reached") as caught, connected(away) as client:
        plan(client)
    assert caught.value.transient
    assert "tmi-ops doctor" in caught.value.hint


def test_a_wrong_password_is_no_passing_trouble_and_is_not_shown(redis: RedisSettings) -> None:
    wrong = RedisSettings.model_validate({**redis.model_dump(), "password": "not-this-one"})
    with pytest.raises(CacheError) as caught, connected(wrong) as client:
        plan(client)
    assert not caught.value.transient
    assert "not-this-one" not in str(caught.value)


def test_a_connection_that_breaks_half_way_is_made_anew(client: Redis, redis: RedisSettings) -> None:
    fill(client)
    with tcp_relay(redis.port) as relay:
        address = redis.model_copy(update={"host": "127.0.0.1", "port": relay.port})
        with connected(address) as over_the_network:
            made = plan(over_the_network)
            relay.cut()
            relay.mend()
            reconcile(made, over_the_network, REPORT)
    assert names(client) == set(STAYS)


@pytest.fixture
def with_tls(redis: RedisSettings, tmp_path: Path) -> Iterator[RedisSettings]:
    """The cache behind TLS, with a certificate of our own authority for `localhost`."""
    certificate = make_authority(tmp_path / "authority", "Cache Tests").certify("localhost")
    with tcp_relay(redis.port, certificate.for_a_server()) as relay:
        told = {"host": "localhost", "port": relay.port, "tls_enabled": True, "tls_ca_file": str(certificate.authority)}
        yield redis.model_copy(update=told)


def test_it_works_behind_tls_with_an_authority_of_our_own(client: Redis, with_tls: RedisSettings) -> None:
    fill(client)
    with connected(with_tls) as over_tls:
        plan_and_do(over_tls)
    assert names(client) == set(STAYS)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"tls_ca_file": None}, {"host": "127.0.0.1"}, {"tls_enabled": False}])
def test_tls_that_cannot_be_trusted_is_refused(with_tls: RedisSettings, wrong: dict[str, object]) -> None:
    with pytest.raises(CacheError), connected(with_tls.model_copy(update=wrong)) as over_tls:
        plan(over_tls)
