"""Filling a real database."""

from __future__ import annotations

import secrets

import pytest

from tmi_ops.backup.fingerprint import fingerprint_tables
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.errors import DatabaseError, OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.schema.models import Base
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.dataset import fill_database
from tmi_ops_tests.stack_dataset.conftest import SMALL

pytestmark = pytest.mark.slow

SMALLEST = 20_000_000
TOLERANCE = 0.1


def fingerprints(postgres: PostgresSettings) -> dict:
    with exported_snapshot(postgres) as snapshot:
        return fingerprint_tables(snapshot.connection, snapshot.tables, SilentReport())


def count(postgres: PostgresSettings, table: str) -> int:
    with connect(postgres) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_two_databases_filled_from_one_seed_are_equal_to_the_row_and_satisfy_every_constraint(
    server: PostgresSettings,
) -> None:
    found = []
    for _ in range(2):
        postgres = server.model_copy(update={"database": f"tmi_{secrets.token_hex(4)}"})
        migrate(postgres, SilentReport(), seed=False)
        summary = fill_database(postgres, SilentReport(), size=SMALLEST, seed=5)
        found.append(fingerprints(postgres))
        assert summary.rows == {table.split(".")[1]: found[-1][table].rows for table in found[-1]}
        assert set(summary.rows) == set(Base.metadata.tables)
        with connect(postgres) as connection:
            unchecked = connection.execute("SELECT count(*) FROM pg_constraint WHERE NOT convalidated").fetchone()[0]
        assert unchecked == 0
    assert found[0] == found[1]


def test_the_size_asked_for_is_met_and_the_rows_tmi_seeds_stay(migrated: PostgresSettings) -> None:
    seeded = count(migrated, "webhook_url_deny_list")
    assert count(migrated, "users") == 1
    summary = fill_database(migrated, SilentReport(), size=SMALL)
    assert summary.bytes == pytest.approx(SMALL, rel=TOLERANCE)
    assert summary.seconds > 0
    assert count(migrated, "webhook_url_deny_list") == seeded + summary.rows["webhook_url_deny_list"]
    assert count(migrated, "users") == 1 + summary.rows["users"]


def test_a_setting_that_is_there_already_stays_as_it_is(migrated: PostgresSettings) -> None:
    with connect(migrated) as connection:
        connection.execute(
            "INSERT INTO system_settings (setting_key, value, setting_type, modified_at) "
            "VALUES ('session.timeout_minutes', '7', 'int', now())"
        )
    fill_database(migrated, SilentReport(), size=SMALLEST)
    with connect(migrated) as connection:
        query = "SELECT value FROM system_settings WHERE setting_key = 'session.timeout_minutes'"
        assert connection.execute(query).fetchone() == ("7",)


def test_a_database_that_holds_threat_models_is_refused_and_left_as_it_is(migrated: PostgresSettings) -> None:
    fill_database(migrated, SilentReport(), size=SMALLEST, seed=1)
    before = fingerprints(migrated)
    with pytest.raises(OpsError, match=r"already has threat models.*Nothing was changed"):
        fill_database(migrated, SilentReport(), size=SMALLEST, seed=2)
    assert fingerprints(migrated) == before


def test_a_database_without_the_tables_is_refused_with_the_command_that_makes_them(database: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match=r"lacks 52 of TMI's 52 tables.*HINT: Run `tmi-ops migrate`"):
        fill_database(database, SilentReport(), size=SMALLEST)


def test_a_row_the_database_refuses_leaves_nothing_of_the_data_set_behind(migrated: PostgresSettings) -> None:
    with connect(migrated) as connection:
        connection.execute("ALTER TABLE timmy_usage ADD CHECK (message_count < 0)")
    with pytest.raises(DatabaseError, match=r"refused the data set.*Nothing was changed"):
        fill_database(migrated, SilentReport(), size=SMALLEST)
    assert count(migrated, "users") == 1
    assert count(migrated, "threat_models") == 0
