"""Migration status, schema findings and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.examine import Examination, examine
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.locking import MIGRATION_LOCK
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops_tests.health.conftest import probe, role, run_on

pytestmark = pytest.mark.slow

Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def migrated(server: PostgresSettings) -> Iterator[PostgresSettings]:
    address = server.model_copy(update={"database": "migrated"})
    migrate(address, SilentReport())
    yield address
    with connect(server) as connection:
        run_on(connection, "DROP DATABASE migrated WITH (FORCE)")


def test_a_schema_that_is_up_to_date_is_well_also_for_a_role_that_may_read_no_row(migrated: PostgresSettings) -> None:
    with role(migrated, "GRANT pg_monitor TO {name}") as monitor:
        for reader in (migrated, monitor):
            assert probe(reader, "migration").answer.seen == "the schema is up to date"
            found = probe(reader, "schema_findings")
            assert found.outcome is Outcome.OK, found.answer


def test_a_missing_table_is_critical_and_a_missing_check_a_step_to_take(migrated: PostgresSettings) -> None:
    with connect(migrated) as connection:
        run_on(connection, "DROP TABLE timmy_usage", "CREATE TABLE more_than_the_models_know (id int)")
    findings = probe(migrated, "schema_findings")
    assert findings.outcome is Outcome.CRITICAL
    assert "timmy_usage: The table is missing." in findings.answer.advice.text
    assert "1 not in TMI's models" in findings.answer.seen
    steps = probe(migrated, "migration")
    assert steps.outcome is Outcome.WARNING
    assert "1 step to take: create table timmy_usage" in steps.answer.seen
    migrate(migrated, SilentReport())
    assert probe(migrated, "migration").outcome is Outcome.OK
    assert probe(migrated, "schema_findings").outcome is Outcome.OK


def test_nothing_is_judged_while_a_migration_is_half_done(migrated: PostgresSettings) -> None:
    with connect(migrated) as connection:
        run_on(connection, "ALTER TABLE timmy_usage RENAME TO not_yet_there")
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        for name in ("migration", "schema_findings"):
            found = probe(migrated, name)
            assert (found.outcome, found.answer.seen) == (Outcome.UNKNOWN, "A migration is changing the schema.")
        run_on(connection, "ALTER TABLE not_yet_there RENAME TO timmy_usage")
    assert probe(migrated, "schema_findings").outcome is Outcome.OK


def test_a_locked_table_is_named_as_the_reason_and_waited_for_once(
    at_home: Settings, migrated: PostgresSettings
) -> None:
    settings = at_home.model_copy(update={"postgres": migrated})
    how = Examination(only=("migration", "schema_findings"))
    with connect(migrated) as holder:
        run_on(holder, "BEGIN", "LOCK threats IN ACCESS EXCLUSIVE MODE")
        report = examine(settings, how, SilentReport())
    assert [result.cause for result in report.results] == [Cause.REFUSED] * 2
    assert "is locked" in report.results[0].answer.seen
    assert report.results[1].seconds < report.results[0].seconds


def test_a_sequence_near_the_end_of_its_column_is_critical_though_the_sequence_itself_has_room(
    database: PostgresSettings, sql: Run
) -> None:
    sql(
        "CREATE TABLE events (id serial PRIMARY KEY)",
        "ALTER SEQUENCE events_id_seq AS bigint",
        "SELECT setval('events_id_seq', 2000000000)",
        "CREATE SEQUENCE going_round CYCLE MAXVALUE 10",
        "SELECT setval('going_round', 10)",
    )
    found = probe(database, "sequences")
    assert found.outcome is Outcome.CRITICAL
    assert "public.events_id_seq has used 93.1 %" in found.answer.seen
    sql(*found.answer.advice.sql)
    assert probe(database, "sequences").outcome is Outcome.OK


def test_a_descending_sequence_and_one_without_a_column_come_to_their_end_too(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE SEQUENCE down INCREMENT -1 MINVALUE -100 MAXVALUE -1", "SELECT setval('down', -80)")
    found = probe(database, "sequences")
    assert found.outcome is Outcome.WARNING
    assert found.answer.advice.sql == ("ALTER SEQUENCE public.down AS bigint NO MAXVALUE;",)


def test_sequences_hidden_from_the_role_come_with_the_grant(
    database: PostgresSettings, monitor: PostgresSettings, sql: Run
) -> None:
    sql("CREATE SEQUENCE numbers")
    found = probe(monitor, "sequences")
    assert (found.outcome, found.cause) == (Outcome.UNKNOWN, Cause.RIGHT)
    sql(*found.answer.advice.sql, "CREATE SEQUENCE more_numbers")
    assert probe(monitor, "sequences").answer.seen.startswith("2 sequences;")


def test_a_sequence_that_fills_a_column_by_its_default_alone_ends_with_that_column(
    database: PostgresSettings, sql: Run
) -> None:
    """Nothing owns it: that it fills an integer shows in the default alone."""
    sql(
        "CREATE SEQUENCE numbers AS bigint",
        "CREATE TABLE events (id int PRIMARY KEY DEFAULT nextval('numbers'), big bigint)",
        "SELECT setval('numbers', 2000000000)",
    )
    found = probe(database, "sequences")
    assert found.outcome is Outcome.CRITICAL
    assert "public.events.id is integer" in found.answer.seen
