"""Sizes, bloat, temporary files, disk and checksums, each in the bad state it warns of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.probes.bloat import Bloat
from tmi_ops.health.probes.disk import DiskSpace
from tmi_ops.health.probes.sizes import Sizes
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops_tests.health.conftest import FLUSH, counters, eventually, probe, run_on

pytestmark = pytest.mark.slow

Run = Callable[..., list[tuple[Any, ...]]]


def test_growth_is_measured_between_readings_and_names_the_table_that_grew(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE TABLE quiet AS SELECT 1 AS id", "CREATE TABLE audit_entries (id int)")
    before = counters(database)
    sql("INSERT INTO audit_entries SELECT generate_series(1, 100000)")
    found = probe(database, "sizes", "1,50", last=before)
    assert found.outcome is Outcome.WARNING
    assert "most of it in public.audit_entries (3." in found.answer.advice.text
    assert isinstance(found.reading, Sizes)
    assert found.reading.rows()[0]["table"] == "public.audit_entries"
    assert found.reading.rows()[0]["rows (estimate)"] == 0


def test_a_first_reading_shows_sizes_and_says_that_growth_comes_later(database: PostgresSettings) -> None:
    found = probe(database, "sizes")
    assert found.outcome is Outcome.OK
    assert "growth is known from the next reading on" in found.answer.seen


def test_a_locked_table_does_not_hold_the_sizes_of_the_others_up(database: PostgresSettings, sql: Run) -> None:
    sql("CREATE TABLE locked (id int)", "CREATE TABLE open AS SELECT 1 AS id")
    with connect(database) as holder:
        run_on(holder, "BEGIN", "LOCK locked IN ACCESS EXCLUSIVE MODE")
        found = probe(database, "sizes")
    assert isinstance(found.reading, Sizes)
    assert [table.name for table in found.reading.tables] == ["public.open"]


@pytest.fixture
def swiss_cheese(sql: Run) -> None:
    """A table whose rows are mostly gone, evenly, with the indexes to match; and one that is full."""
    sql(
        "CREATE TABLE cheese (id int PRIMARY KEY, name text NOT NULL) WITH (autovacuum_enabled = off)",
        "INSERT INTO cheese SELECT n, 'a name as long as names are: ' || n FROM generate_series(1, 500000) n",
        "CREATE TABLE packed AS SELECT * FROM cheese",
        "CREATE INDEX packed_id ON packed (id)",
        "DELETE FROM cheese WHERE id % 10 <> 0",
        "VACUUM (ANALYZE) cheese",
        "ANALYZE packed",
        "CREATE EXTENSION pgstattuple",
    )


@pytest.mark.usefixtures("swiss_cheese")
def test_bloat_is_estimated_near_what_pgstattuple_measures(database: PostgresSettings, sql: Run) -> None:
    for name, bloated in (("table_bloat", "public.cheese"), ("index_bloat", "public.cheese_pkey")):
        estimated, exact = probe(database, name), probe(database, name, exact_bloat=True)
        for found in (estimated, exact):
            assert found.outcome is Outcome.CRITICAL, found.answer
            assert isinstance(found.reading, Bloat)
            assert [item.name for item in found.reading.over(found.thresholds)] == [bloated]
        assert isinstance(estimated.reading, Bloat)
        assert isinstance(exact.reading, Bloat)
        assert estimated.reading.worst_percent == pytest.approx(exact.reading.worst_percent, abs=8)
        assert exact.answer.seen.startswith("measured")
    assert probe(database, "index_bloat").answer.advice.sql == ("REINDEX INDEX CONCURRENTLY public.cheese_pkey;",)
    sql("REINDEX INDEX CONCURRENTLY cheese_pkey", "VACUUM (FULL, ANALYZE) cheese")
    assert probe(database, "index_bloat").outcome is Outcome.OK
    assert probe(database, "table_bloat").outcome is Outcome.OK


def test_bloat_says_what_to_create_or_grant_where_it_cannot_be_known(
    database: PostgresSettings, monitor: PostgresSettings, sql: Run
) -> None:
    sql(
        "CREATE TABLE hidden AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 10000)",
        "DELETE FROM hidden WHERE ctid::text NOT LIKE '%,1)'",
        "VACUUM (ANALYZE, TRUNCATE off) hidden",
    )
    hidden = probe(monitor, "table_bloat")
    assert (hidden.outcome, hidden.cause) == (Outcome.UNKNOWN, Cause.RIGHT)
    without = probe(monitor, "table_bloat", exact_bloat=True)
    assert (without.outcome, without.cause) == (Outcome.UNKNOWN, Cause.EXTENSION)
    sql(*without.answer.advice.sql)
    assert probe(monitor, "table_bloat", exact_bloat=True).outcome is Outcome.CRITICAL
    sql(hidden.answer.advice.sql[1])
    assert probe(monitor, "table_bloat").outcome is Outcome.CRITICAL


def test_sorts_that_spill_to_disk_are_measured_between_readings(database: PostgresSettings, sql: Run) -> None:
    before = counters(database)
    sql(
        "SET work_mem = '64kB'",
        "SELECT n FROM generate_series(1, 200000) n ORDER BY -n OFFSET 199999",
        FLUSH,
    )
    found = probe(database, "temporary_files", "1,", last=before)
    assert found.outcome is Outcome.WARNING
    assert "work_mem (now 4MB)" in found.answer.advice.text


def test_the_disks_of_a_server_on_this_machine_are_seen(database: PostgresSettings, cluster: RunningCluster) -> None:
    found = probe(database, "disk_space", "0,100.1")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, DiskSpace)
    fullest = found.reading.filesystems[0]
    assert Path(fullest.path).is_relative_to(cluster.directory)
    state = os.statvfs(cluster.directory)
    assert fullest.size == state.f_blocks * state.f_frsize


def test_a_server_whose_process_is_not_here_has_no_visible_disks(
    database: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmi_ops.health.probes.disk.Path", lambda path: Path(f"/nowhere{path}"))
    found = probe(database, "disk_space")
    assert (found.outcome, found.cause) == (Outcome.UNKNOWN, Cause.NOT_VISIBLE)
    assert found.answer.advice.command == ("TMI_OPS_HEALTH_SKIP=disk_space",)


def critical(found: Any) -> Any:
    return found if found.outcome is Outcome.CRITICAL else None


@pytest.mark.slow
def test_a_page_the_disk_damaged_is_critical(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> None:
    with throwaway_server(programs, tmp_path_factory.mktemp("damaged")) as damaged:
        assert probe(damaged.address, "checksum_failures").answer.seen == "data checksums are on; no page has failed"
        with connect(damaged.address) as connection:
            run_on(connection, "CREATE TABLE victim AS SELECT generate_series(1, 1000)", "CHECKPOINT")
        with connect(damaged.address, "template1") as connection:
            # A copy of files: none of its pages is in the server's memory.
            how = "STRATEGY file_copy" if programs.major >= 15 else ""
            run_on(connection, f"CREATE DATABASE copied TEMPLATE postgres {how}")
        copied = damaged.address.model_copy(update={"database": "copied"})
        with connect(copied) as connection:
            path = run_on(connection, "SELECT pg_relation_filepath('victim')")[0][0]
        with (damaged.directory / path).open("r+b") as file:
            file.seek(5000)
            file.write(b"not what was written")
        with connect(copied) as connection, pytest.raises(Exception, match="invalid page"):
            run_on(connection, "SELECT count(*) FROM victim")
        found = eventually(lambda: critical(probe(copied, "checksum_failures")))
    assert "1 page failed the checksum in copied" in found.answer.seen
    assert "tmi-ops verify latest" in found.answer.advice.command


def test_rows_that_fill_a_page_each_and_columns_that_were_dropped_are_no_bloat(
    database: PostgresSettings, sql: Run
) -> None:
    dropped = [f"c{number}" for number in range(300)]
    sql(
        "CREATE TABLE wide (id int, body text) WITH (fillfactor = 50)",
        "ALTER TABLE wide ALTER body SET STORAGE PLAIN",
        "INSERT INTO wide SELECT n, repeat('x', 6000) FROM generate_series(1, 2000) n",
        f"CREATE TABLE narrow (id int, {', '.join(f'{name} int' for name in dropped)})",
        f"ALTER TABLE narrow {', '.join(f'DROP {name}' for name in dropped)}",
        "INSERT INTO narrow SELECT generate_series(1, 200000)",
        "ANALYZE wide",
        "ANALYZE narrow",
    )
    found = probe(database, "table_bloat")
    assert isinstance(found.reading, Bloat)
    assert {item.name for item in found.reading.items} == {"public.wide", "public.narrow"}
    assert found.reading.over(found.thresholds) == ()
