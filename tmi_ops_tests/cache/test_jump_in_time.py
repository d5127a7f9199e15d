"""What the application sees when its database jumps back and its cache is reconciled, or is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tmi_ops.cache.reconciliation import read_and_plan, reconcile
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import CachePolicy, PostgresSettings, RedisSettings
from tmi_ops_tests.application import Application, SignedIn, running_application

pytestmark = pytest.mark.slow


@pytest.fixture
def application(database: PostgresSettings, redis: RedisSettings, tmp_path: Path) -> Iterator[Application]:
    migrate(database, SilentReport())
    with running_application(tmp_path, postgres=database, redis=redis) as running:
        yield running


@pytest.fixture
def past(application: Application, database: PostgresSettings) -> Iterator[PostgresSettings]:
    """The application's database as it was some transactions ago. The application has just been told to go on there."""
    application.wait_for_writes(20)
    application.stop()
    earlier = database.model_copy(update={"database": f"{database.database}_past"})
    with connect(database, "postgres") as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database.database,))
        admin.execute(f"CREATE DATABASE {earlier.database} TEMPLATE {database.database}")
    application.start()
    application.wait_for_writes(40)
    application.stop()
    application.connect_to(earlier)
    application.start()
    application.stop()
    yield earlier
    application.kill()
    with connect(database, "postgres") as admin:
        admin.execute(f"DROP DATABASE {earlier.database} WITH (FORCE)")


def sign_in_two_and_revoke_one(application: Application) -> tuple[SignedIn, SignedIn]:
    alice, bob = application.sign_in(), application.sign_in()
    application.revoke(alice)
    return alice, bob


def test_without_it_people_are_shown_what_is_not_in_the_database(
    client: Redis, application: Application, past: PostgresSettings
) -> None:
    assert application.stale_reads(past)


@pytest.mark.parametrize("sessions", ["drop-sessions", "keep-sessions"])
def test_with_it_no_read_is_stale_and_no_revoked_token_is_revived(
    client: Redis, application: Application, past: PostgresSettings, sessions: str
) -> None:
    alice, bob = sign_in_two_and_revoke_one(application)
    policy = CachePolicy.model_validate({"sessions": sessions})
    reconcile(read_and_plan(client, policy, "the cache", SilentReport()), client, SilentReport())
    assert application.stale_reads(past) == []
    assert not application.accepts(alice)
    assert application.refreshes(bob) is (sessions == "keep-sessions")
    application.start()
    application.wait_for_writes(10)
    assert application.stale_reads(past) == []
