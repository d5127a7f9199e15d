from __future__ import annotations

import pytest
from dagster import SkipReason

from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Outcome, Severity
from tmi_ops.health.last_reading import open_saved_text
from tmi_ops.health.record import last_answers
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.locking import MIGRATION_LOCK
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import Settings
from tmi_ops_tests.orchestration.sensing import look_through


@pytest.fixture
def migrated(as_variables: Settings) -> Settings:
    migrate(as_variables.postgres, SilentReport())
    return as_variables


def open_alerts(settings: Settings) -> dict[str, Severity]:
    return {record.alert.key: record.alert.severity for record in AlertService(settings).records() if record.is_open}


def last_said(settings: Settings) -> Outcome | None:
    """What `tmi-ops status` will tell of the schema."""
    last = last_answers(open_saved_text(settings))
    return last.schema_findings.status if last and last.schema_findings else None


@pytest.mark.slow
def test_a_change_that_tmi_cannot_live_with_is_validated_once_told_and_ends_when_it_is_taken_back(
    migrated: Settings,
) -> None:
    first = look_through("schema_drift")
    assert not open_alerts(migrated)
    assert look_through("schema_drift", first.cursor).skip_reason is not None

    with connect(migrated.postgres) as connection:
        connection.execute("ALTER TABLE threats RENAME COLUMN name TO title")
    drifted = look_through("schema_drift", first.cursor)
    (request,) = drifted.run_requests or []
    assert request.job_name == "validate_schema"
    assert open_alerts(migrated) == {"schema-drift": Severity.CRITICAL}
    (record,) = AlertService(migrated).records()
    assert "threats.name: The column is missing." in record.alert.at_risk
    assert last_said(migrated) is Outcome.CRITICAL
    assert look_through("schema_drift", drifted.cursor).skip_reason is not None

    with connect(migrated.postgres) as connection:
        connection.execute("ALTER TABLE threats RENAME COLUMN title TO name")
    mended = look_through("schema_drift", drifted.cursor)
    assert len(mended.run_requests or []) == 1
    assert not open_alerts(migrated)
    assert last_said(migrated) is Outcome.OK


@pytest.mark.slow
def test_a_migration_that_is_half_done_is_no_drift(migrated: Settings) -> None:
    with connect(migrated.postgres) as connection:
        connection.execute("DROP TABLE timmy_usage")
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        looked = look_through("schema_drift", '{"digest": "before"}')
        assert (looked.skip_reason, looked.cursor) == (SkipReason("A migration is running."), '{"digest": "before"}')
        assert not open_alerts(migrated)
    look_through("schema_drift", looked.cursor)
    assert open_alerts(migrated) == {"schema-drift": Severity.CRITICAL}


@pytest.mark.slow
def test_an_extra_table_is_shown_by_the_asset_and_wakes_nobody(migrated: Settings) -> None:
    first = look_through("schema_drift")
    with connect(migrated.postgres) as connection:
        connection.execute("CREATE TABLE left_behind (id int)")
    assert len(look_through("schema_drift", first.cursor).run_requests or []) == 1
    assert not open_alerts(migrated)


def test_a_database_that_cannot_be_reached_is_no_drift(as_variables: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "wrong")
    result = look_through("schema_drift", '{"digest": "before"}')
    assert "Skipped: " in str(result.skip_reason)
    assert result.cursor is None
    assert not open_alerts(as_variables)
