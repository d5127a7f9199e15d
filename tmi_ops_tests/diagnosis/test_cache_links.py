"""Set-ups in which TMI's cache cannot be looked after."""

from __future__ import annotations

from tmi_ops.diagnosis.finding import Outcome
from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.diagnosis.conftest import Examine


def test_a_cache_that_is_down_is_named_and_hides_nothing_else(examine: Examine) -> None:
    port = free_port()
    diagnosis = examine(REDIS_PORT=str(port))
    assert_cause(diagnosis, "redis-address", f"127.0.0.1:{port} refuses", "systemctl start redis-server")
    assert [step.name for step in diagnosis.at(Outcome.FAILED)] == ["redis-address"]


def test_a_wrong_password_of_the_cache_is_told_from_a_missing_one(examine: Examine) -> None:
    assert_cause(examine(REDIS_PASSWORD="wrong"), "redis-authentication", "set REDIS_PASSWORD", "requirepass")
    assert_cause(examine(REDIS_PASSWORD=None), "redis-authentication", "wants a password", "set REDIS_PASSWORD")


def test_a_database_that_the_cache_does_not_have_is_named(examine: Examine) -> None:
    assert_cause(examine(REDIS_DB="99"), "redis-authentication", "no database 99", "set REDIS_DB=0")


def test_an_environment_without_a_cache_is_no_finding(examine: Examine) -> None:
    nothing = dict.fromkeys(("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"))
    diagnosis = examine(nothing)
    assert diagnosis.root_cause is None
    assert diagnosis.step("redis-address").outcome is Outcome.SKIPPED
