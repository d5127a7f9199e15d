"""Checkpoints, WAL, the archiver and slots, each in the bad state it warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.probes.wal import Archiver
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.health.conftest import counters, eventually, probe
from tmi_ops_tests.physical import reload_configuration

Run = Callable[..., list[tuple[Any, ...]]]
WRITE_A_LITTLE = "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000))"


def test_checkpoints_that_are_asked_for_are_a_warning(database: PostgresSettings, sql: Run, programs: Programs) -> None:
    view = "checkpointer" if programs.major >= 17 else "bgwriter"
    sql(f"SELECT pg_stat_reset_shared('{view}')", *["CHECKPOINT"] * 10)
    found = eventually(lambda: (one := probe(database, "checkpoints", "50,101")).outcome is Outcome.WARNING and one)
    assert "100 % of them requested" in found.answer.seen
    assert "ALTER SYSTEM SET max_wal_size = '4GB';" in found.answer.advice.sql


def test_the_rate_of_wal_is_measured_between_readings(database: PostgresSettings, sql: Run) -> None:
    first = probe(database, "wal_rate")
    assert (first.outcome, first.cause) == (Outcome.UNKNOWN, Cause.TOO_EARLY)
    before = counters(database)
    sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000000))")
    found = probe(database, "wal_rate", "0.1,", last=before)
    assert found.outcome is Outcome.WARNING
    assert "20." in found.answer.seen  # MB, of a thousand kB


@pytest.fixture
def broken_archive(sql: Run, database: PostgresSettings) -> Iterator[None]:
    set_archive_command(sql, database, "/bin/false")
    yield
    set_archive_command(sql, database, "/bin/true")


def set_archive_command(sql: Run, database: PostgresSettings, command: str) -> None:
    sql(f"ALTER SYSTEM SET archive_command = '{command}'")
    reload_configuration(database)


@pytest.mark.usefixtures("broken_archive")
def test_an_archive_command_that_fails_is_critical_and_names_the_segment(database: PostgresSettings, sql: Run) -> None:
    segment = sql(WRITE_A_LITTLE, "SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    found = eventually(lambda: (one := probe(database, "archiver")).outcome is Outcome.CRITICAL and one)
    assert segment in found.answer.seen
    assert isinstance(found.reading, Archiver)
    assert found.reading.waiting
    set_archive_command(sql, database, "/bin/true")
    assert eventually(lambda: (one := probe(database, "archiver")).outcome is Outcome.OK and one)


def test_a_slot_nobody_reads_holds_wal_and_dropping_it_is_the_last_resort(database: PostgresSettings, sql: Run) -> None:
    sql("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 3000000))", "SELECT pg_switch_wal()")
        found = probe(database, "replication_slots", "2,1000000")
        assert found.outcome is Outcome.WARNING
        assert "forgotten (inactive) retains" in found.answer.seen
        assert "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';" in found.answer.advice.sql
    finally:
        sql("SELECT pg_drop_replication_slot('forgotten')")
    assert probe(database, "replication_slots").answer.seen == "none"


def test_a_slot_whose_wal_is_gone_is_critical(database: PostgresSettings, sql: Run) -> None:
    sql(
        "SELECT pg_create_physical_replication_slot('starved', true)",
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'",
    )
    reload_configuration(database)
    try:
        for _ in range(4):
            sql(WRITE_A_LITTLE, "SELECT pg_switch_wal()")
        sql("CHECKPOINT")
        found = probe(database, "replication_slots")
        assert found.outcome is Outcome.CRITICAL
        assert "slot starved has lost WAL its consumer needs" in found.answer.seen
    finally:
        sql("SELECT pg_drop_replication_slot('starved')", "ALTER SYSTEM RESET max_slot_wal_keep_size")
        reload_configuration(database)


def test_archiving_without_a_command_is_critical_before_the_first_segment_waits(
    database: PostgresSettings, sql: Run
) -> None:
    set_archive_command(sql, database, "")
    try:
        found = probe(database, "archiver")
        assert found.outcome is Outcome.CRITICAL
        assert "archive_mode is on without an archive_command" in found.answer.seen
    finally:
        set_archive_command(sql, database, "/bin/true")
