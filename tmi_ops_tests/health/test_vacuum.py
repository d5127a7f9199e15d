"""Tables autovacuum left behind, and counters on their way to wraparound."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.probes.vacuum import Statistics, Upkeep
from tmi_ops.health.probes.wraparound import Wraparound
from tmi_ops.postgres.cluster import RunningCluster, start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity, server_identity
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops_tests.health.conftest import FLUSH, probe, run_on

Run = Callable[..., list[tuple[Any, ...]]]


def test_dead_rows_autovacuum_should_have_cleared_away_are_a_warning_and_vacuum_cures_it(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE TABLE carts AS SELECT generate_series(1, 1000) AS id", FLUSH, "ANALYZE carts")
    sql("UPDATE carts SET id = id", FLUSH)
    found = probe(database, "autovacuum")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, Upkeep)
    assert found.reading.rows()[0] == {
        "table": "public.carts",
        "live": 1000,
        "dead": 1000,
        "autovacuum comes at": 250,
        "last vacuumed": "never",
        "autovacuum": "on",
    }
    sql(found.answer.advice.sql[0], FLUSH)
    assert probe(database, "autovacuum").outcome is Outcome.OK


def test_a_table_with_autovacuum_off_is_called_by_name(database: PostgresSettings, sql: Run) -> None:
    sql(
        "CREATE TABLE odd WITH (autovacuum_enabled = off, autovacuum_vacuum_threshold = 9,"
        " autovacuum_vacuum_scale_factor = 0) AS SELECT generate_series(1, 100) AS id",
        "DELETE FROM odd",
        FLUSH,
    )
    found = probe(database, "autovacuum")
    assert found.outcome is Outcome.CRITICAL
    assert "switch autovacuum on again for public.odd" in found.answer.advice.text
    assert found.answer.advice.sql[0] == "ALTER TABLE public.odd RESET (autovacuum_enabled);"


def test_autovacuum_switched_off_for_the_whole_server_is_a_warning(programs: Programs, server_without: Any) -> None:
    found = probe(server_without, "autovacuum")
    assert found.outcome is Outcome.WARNING
    assert "ALTER SYSTEM SET autovacuum = on;" in found.answer.advice.sql


@pytest.fixture(scope="module")
def server_without(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server as scratch clusters are: without autovacuum, fsync and full_page_writes."""
    with throwaway_server(programs, tmp_path_factory.mktemp("without")) as running:
        yield running.address


def test_settings_by_which_a_crash_destroys_the_database_are_critical(server_without: PostgresSettings) -> None:
    found = probe(server_without, "durability")
    assert found.outcome is Outcome.CRITICAL
    assert found.answer.advice.sql[:2] == ("ALTER SYSTEM SET fsync = on;", "ALTER SYSTEM SET full_page_writes = on;")


def test_statistics_that_are_out_of_date_are_found_and_analyze_cures_it(database: PostgresSettings, sql: Run) -> None:
    sql("CREATE TABLE prices AS SELECT generate_series(1, 1000) AS id", FLUSH)
    found = probe(database, "analyze")
    assert found.outcome is Outcome.CRITICAL
    assert isinstance(found.reading, Statistics)
    assert found.reading.rows()[0]["last analysed"] == "never"
    assert found.answer.advice.sql == ("ANALYZE public.prices;",)
    sql(*found.answer.advice.sql, FLUSH)
    assert probe(database, "analyze").outcome is Outcome.OK


# Autovacuum would come against wraparound at once, even where it is off.
UNFREEZING = {
    "autovacuum": "off",
    "autovacuum_freeze_max_age": "2000000000",
    "autovacuum_multixact_freeze_max_age": "2000000000",
    "fsync": "off",
}


@pytest.fixture(scope="module")
def aged(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that has come most of the way round: its counters were set forward with pg_resetwal."""
    root = tmp_path_factory.mktemp("aged")
    root.chmod(0o755)
    with throwaway_server(programs, root) as running:
        with connect(running.address) as connection:
            run_on(connection, "CREATE TABLE old AS SELECT 1 AS id", "CREATE DATABASE other")
        running.stop()
        set_forward(programs, running, transaction=1_200_000_000, multixact=1_600_000_000)
        identity = identity_of(programs, running)
        again = start_cluster(
            programs, running.directory, identity, running.address,
            parameters=UNFREEZING, log=root / "again.log",
        )  # fmt: skip
        try:
            yield running.address
        finally:
            again.stop()


def identity_of(programs: Programs, running: RunningCluster) -> ServerIdentity:
    return server_identity(programs.path("postgres"), running.directory.parent)


def set_forward(programs: Programs, running: RunningCluster, *, transaction: int, multixact: int) -> None:
    data = running.directory
    # The commit log of a transaction is in segments of 2^20 transactions of two bits each, which must exist; of a
    # multixact there are 65,536 in a segment, four bytes each.
    pages = {
        data / "pg_xact" / f"{transaction >> 20:04X}": 262_144,
        data / "pg_multixact" / "offsets" / f"{multixact >> 16:04X}": 262_144,
    }
    for file, size in pages.items():
        file.write_bytes(bytes(size))
    identity = identity_of(programs, running)
    identity.take_over(data)
    argv = [programs.path("pg_resetwal"), "-f", "-x", str(transaction), "-m", f"{multixact},1", data]
    subprocess.run(
        identity.command(argv),
        check=True, capture_output=True, cwd="/", **identity.process_options(),
    )  # fmt: skip


@pytest.mark.slow
def test_multixacts_on_their_way_to_wraparound_are_critical(aged: PostgresSettings) -> None:
    found = probe(aged, "multixact_wraparound")
    assert found.outcome is Outcome.CRITICAL
    assert "postgres is 1,599,999,999 multixacts old" in found.answer.seen
    assert found.answer.advice.sql[0].startswith("VACUUM (FREEZE, VERBOSE)")


@pytest.mark.slow
def test_transactions_on_their_way_to_wraparound_are_critical_with_what_to_freeze(aged: PostgresSettings) -> None:
    found = probe(aged, "transaction_wraparound")
    assert found.outcome is Outcome.CRITICAL
    assert "56.0 % of the way to refusing writes: the oldest row of database postgres is 1,199" in found.answer.seen
    assert isinstance(found.reading, Wraparound)
    assert found.reading.tables[0].age == found.reading.databases[0].age
    assert found.answer.advice.sql[0] == f"VACUUM (FREEZE, VERBOSE) {found.reading.tables[0].name};"
    with connect(aged) as connection:
        run_on(connection, "VACUUM (FREEZE)")
    thawed = probe(aged, "transaction_wraparound")
    assert "postgres" not in thawed.answer.seen
    assert thawed.answer.advice.command in ((f"vacuumdb --freeze --dbname {name}",) for name in ("other", "template1"))
