"""A primary and its standby, seen from both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.examine import Examination, examine
from tmi_ops.postgres.cluster import RunningCluster, free_port, start_cluster
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops_tests.health.conftest import eventually, probe, run_on
from tmi_ops_tests.physical import reload_configuration

pytestmark = pytest.mark.slow

PRIMARY = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "shared_buffers": "32MB",
    "synchronous_commit": "on",
}


@dataclass
class Pair:
    primary: PostgresSettings
    standby: PostgresSettings
    running_standby: RunningCluster


@pytest.fixture(scope="module")
def pair(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("pair")
    root.chmod(0o755)
    with throwaway_server(programs, root, parameters=PRIMARY) as primary:
        data = root / "standby"
        # -R writes all of it into primary_conninfo, and a walreceiver takes no settings of ours.
        env = {name: value for name, value in libpq_environment(primary.address).items() if name != "PGOPTIONS"}
        run_program([programs.path("pg_basebackup"), "-D", data, "-R", "-c", "fast", "--no-sync"], env=env)
        identity = server_identity(programs.path("postgres"), root)
        identity.take_over(data)
        address = primary.address.model_copy(update={"port": free_port()})
        standby = start_cluster(
            programs, data, identity, address, parameters={**PRIMARY, "fsync": "off"}, log=root / "standby.log"
        )
        try:
            eventually(lambda: ask(primary.address, "SELECT * FROM pg_stat_replication WHERE state = 'streaming'"))
            yield Pair(primary.address, address, standby)
        finally:
            standby.stop()


def ask(postgres: PostgresSettings, *statements: str) -> list[tuple[Any, ...]]:
    with connect(postgres) as connection:
        return run_on(connection, *statements)


def test_a_standby_that_stops_replaying_is_seen_from_both_sides_until_it_goes_on(pair: Pair) -> None:
    assert probe(pair.standby, "replay_delay").outcome is Outcome.OK
    ask(pair.standby, "SELECT pg_wal_replay_pause()")
    ask(pair.primary, "CREATE TABLE written AS SELECT generate_series(1, 50000) AS id")
    behind = eventually(
        lambda: (one := probe(pair.primary, "replication_lag", "1,1000")).outcome is Outcome.WARNING and one
    )
    assert "pg_wal_replay_resume()" in " ".join(behind.answer.advice.sql)
    delayed = eventually(
        lambda: (one := probe(pair.standby, "replay_delay", "0.001,1000")).outcome is Outcome.WARNING and one
    )
    assert "replay is paused" in delayed.answer.seen
    ask(pair.standby, delayed.answer.advice.sql[0])
    eventually(lambda: probe(pair.primary, "replication_lag", "1,1000").outcome is Outcome.OK)
    eventually(lambda: probe(pair.standby, "replay_delay").outcome is Outcome.OK)


def test_a_whole_examination_of_a_standby_refuses_nothing(pair: Pair, at_home: Settings) -> None:
    settings = at_home.model_copy(update={"postgres": pair.standby})
    report = examine(settings, Examination(), SilentReport())
    assert [one.probe.name for one in report.results if one.cause in (Cause.REFUSED, Cause.RIGHT)] == []


def test_commits_that_wait_for_a_standby_that_is_not_there_are_critical(pair: Pair) -> None:
    ask(pair.primary, "ALTER SYSTEM SET synchronous_standby_names = 'elsewhere'")
    reload_configuration(pair.primary)
    try:
        found = probe(pair.primary, "replication_lag")
        assert found.outcome is Outcome.CRITICAL
        assert "elsewhere" in found.answer.seen
        ask(pair.primary, *found.answer.advice.sql)
        eventually(lambda: probe(pair.primary, "replication_lag").outcome is Outcome.OK)
    finally:
        ask(pair.primary, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


def test_a_standby_that_receives_nothing_is_a_warning(pair: Pair) -> None:
    ask(pair.standby, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", "SELECT pg_reload_conf()")
    found = eventually(lambda: (one := probe(pair.standby, "replay_delay")).outcome is Outcome.WARNING and one)
    assert "not connected to a primary" in found.answer.seen
