"""Set-ups in which TMI's cache cannot be looked after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.postgres.cluster import free_port
from tmi_ops.settings import RedisSettings
from tmi_ops_tests.certificates import make_authority
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.diagnosis.conftest import Examine, Variables
from tmi_ops_tests.tcp_relay import tcp_relay


def test_a_cache_that_is_down_is_named_and_hides_nothing_else(examine: Examine) -> None:
    port = free_port()
    diagnosis = examine(REDIS_PORT=str(port))
    assert_cause(diagnosis, "redis-address", f"127.0.0.1:{port} refuses", "systemctl start redis-server")
    assert [step.name for step in diagnosis.at(Outcome.CRITICAL)] == ["redis-address"]


def test_a_wrong_password_of_the_cache_is_told_from_a_missing_one(examine: Examine) -> None:
    assert_cause(examine(REDIS_PASSWORD="wrong"), "redis-authentication", "set REDIS_PASSWORD", "requirepass")
    assert_cause(examine(REDIS_PASSWORD=None), "redis-authentication", "requires a password", "set REDIS_PASSWORD")


def test_a_database_that_the_cache_does_not_have_is_named(examine: Examine) -> None:
    assert_cause(examine(REDIS_DB="99"), "redis-authentication", "no database 99", "set REDIS_DB=0")


def test_an_environment_without_a_cache_is_no_finding(examine: Examine) -> None:
    nothing = dict.fromkeys(("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"))
    diagnosis = examine(nothing)
    assert diagnosis.root_cause is None
    assert diagnosis.result("redis-address").outcome is Outcome.NOT_APPLICABLE


@pytest.fixture
def behind_tls(redis_server: RedisSettings, tmp_path: Path) -> Iterator[Variables]:
    """The variables of a cache that speaks TLS, with a certificate of our own authority for `localhost`."""
    certificate = make_authority(tmp_path / "authority", "Doctor Tests").certify("localhost")
    with tcp_relay(redis_server.port, certificate.for_a_server()) as relay:
        yield {
            "REDIS_HOST": "localhost",
            "REDIS_PORT": str(relay.port),
            "REDIS_TLS_ENABLED": "true",
            "REDIS_TLS_CA_FILE": str(certificate.authority),
        }


def test_a_cache_behind_tls_is_well(examine: Examine, behind_tls: Variables) -> None:
    assert examine(behind_tls).root_cause is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"REDIS_TLS_CA_FILE": None}, ["is not trusted", "set REDIS_TLS_CA_FILE"]),
        ({"REDIS_TLS_CA_FILE": "/nowhere/ca.crt"}, ["/nowhere/ca.crt does not exist"]),
        ({"REDIS_TLS_CA_FILE": __file__}, ["is not a PEM file"]),
        ({"REDIS_HOST": "127.0.0.1"}, ["does not contain the name 127.0.0.1", "subjectAltName"]),
        ({"REDIS_TLS_ENABLED": "false"}, ["requires TLS", "set REDIS_TLS_ENABLED=true"]),
    ],
)
def test_tls_of_the_cache_that_cannot_be_used_is_named_with_the_setting(
    examine: Examine, behind_tls: Variables, change: dict[str, str | None], words: list[str]
) -> None:
    assert_cause(examine({**behind_tls, **change}), "redis-tls", *words)


def test_tls_towards_a_cache_that_speaks_none_is_named(examine: Examine) -> None:
    assert_cause(
        examine(REDIS_TLS_ENABLED="true"), "redis-tls", "does not answer a TLS handshake", "REDIS_TLS_ENABLED=false"
    )
