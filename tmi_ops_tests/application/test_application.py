"""The application sees what a test of a recovery needs seen: it fails for the reasons such a test must fail."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from tmi_ops.cache.connection import connected
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings, RedisSettings
from tmi_ops_tests.application import Application, running_application
from tmi_ops_tests.application.driving import PATIENCE_S
from tmi_ops_tests.tcp_relay import TcpRelay, tcp_relay


@pytest.fixture(scope="module")
def tmi(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database with TMI's schema."""
    with connect(server) as connection:
        connection.execute("CREATE DATABASE tmi_application")
    address = server.model_copy(update={"database": "tmi_application"})
    migrate(address, SilentReport())
    yield address
    with connect(server) as connection:
        connection.execute("DROP DATABASE tmi_application WITH (FORCE)")


@pytest.fixture
def network(tmi: PostgresSettings) -> Iterator[TcpRelay]:
    with tcp_relay(tmi.port) as relay:
        yield relay


@pytest.fixture
def application(
    tmi: PostgresSettings, network: TcpRelay, redis_server: RedisSettings, tmp_path: Path
) -> Iterator[Application]:
    address = tmi.model_copy(update={"host": "127.0.0.1", "port": network.port})
    with running_application(tmp_path, postgres=address, redis=redis_server) as running:
        yield running


@pytest.fixture
def cache(redis_server: RedisSettings) -> Iterator[Redis]:
    with connected(redis_server) as client:
        yield client
        client.flushdb()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_writes_reads_and_is_well(application: Application, tmi: PostgresSettings) -> None:
    application.wait_for_writes(20)
    assert application.is_healthy()
    assert application.missing(tmi, before=datetime.now(UTC)) == []
    assert application.stale_reads(tmi) == []
    assert not application.is_healthy(), "it was stopped to be asked"


@pytest.mark.slow
def test_a_lost_row_and_an_older_version_are_missed(application: Application, tmi: PostgresSettings) -> None:
    application.wait_for_writes(20)
    application.stop()
    rows = [row for write in application.acknowledged() for row in write.rows]
    changed = next(row for row in rows if row.table == "threat_models" and row.version > 1)
    lost = next(row for row in rows if row.table == "audit_entries")
    with connect(tmi) as connection:
        connection.execute("DELETE FROM audit_entries WHERE id = %s", (lost.id,))
        connection.execute("UPDATE threat_models SET version = 1 WHERE id = %s", (changed.id,))
    missed = application.missing(tmi, before=datetime.now(UTC))
    assert {(row.table, row.id) for row in missed} == {(lost.table, lost.id), (changed.table, changed.id)}
    assert application.missing(tmi, before=application.acknowledged()[0].begun) == []


def test_a_row_from_after_the_moment_is_seen(application: Application, tmi: PostgresSettings) -> None:
    application.wait_for_writes(5)
    moment = datetime.now(UTC)
    application.wait_for_writes(5)
    application.stop()
    rows = application.present(tmi, after=moment, until=datetime.now(UTC))
    assert {row.table for row in rows} >= {"threats", "audit_entries"}
    assert application.present(tmi, after=datetime.now(UTC), until=datetime.now(UTC)) == []


def test_a_read_that_the_database_no_longer_holds_is_stale(
    application: Application, tmi: PostgresSettings, cache: Redis
) -> None:
    application.wait_for_writes(10)
    application.stop()
    models = [row.id for write in application.acknowledged() for row in write.rows if row.table == "threat_models"]
    with connect(tmi) as connection:
        connection.execute("DELETE FROM threats WHERE threat_model_id = %s", (models[0],))
        connection.execute("DELETE FROM threat_models WHERE id = %s", (models[0],))
    assert [(read.id, read.stored) for read in application.stale_reads(tmi)] == [(models[0], None)]
    cache.delete(f"cache:threat_model:{models[0]}")
    assert application.stale_reads(tmi) == []


def test_a_revoked_token_is_accepted_again_once_the_cache_forgets_it(application: Application, cache: Redis) -> None:
    alice, bob = application.sign_in(), application.sign_in()
    application.revoke(alice)
    assert not application.accepts(alice)
    assert application.accepts(bob)
    assert application.refreshes(bob)
    cache.flushdb()
    assert application.accepts(alice)
    assert not application.refreshes(bob)


def test_it_comes_back_when_its_connection_is_cut(application: Application, network: TcpRelay) -> None:
    application.wait_for_writes(3)
    network.cut()
    until(lambda: not application.is_healthy())
    network.mend()
    application.wait_for_writes(3)
    assert application.is_healthy()


def test_it_goes_on_elsewhere_by_new_connection_strings(
    application: Application, network: TcpRelay, tmi: PostgresSettings
) -> None:
    application.wait_for_writes(3)
    network.cut()
    application.connect_to(tmi)
    application.wait_for_writes(3)
    assert application.missing(tmi, before=datetime.now(UTC)) == []


def test_its_journal_outlives_it_and_it_starts_again_at_the_same_place(
    application: Application, tmi: PostgresSettings
) -> None:
    application.wait_for_writes(3)
    application.kill()
    known = application.acknowledged()
    assert application.missing(tmi, before=datetime.now(UTC)) == []
    place = application.health_url
    application.launch()
    application.wait_for_writes(3)
    assert application.health_url == place
    assert application.acknowledged()[: len(known)] == known


def test_hooks_may_stop_it_and_start_it(application: Application) -> None:
    subprocess.run(shlex.split(application.stop_command), check=True)
    assert not application.is_healthy()
    written = len(application.acknowledged())
    subprocess.run(shlex.split(application.start_command), check=True)
    application.wait_for_writes(1)
    assert application.is_healthy()
    assert len(application.acknowledged()) > written
