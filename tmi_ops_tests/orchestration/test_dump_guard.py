"""The guard of a database beside its environment's own, look by look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions, SensorResult, SkipReason, build_sensor_context

from tmi_ops.alerts.service import AlertService
from tmi_ops.errors import StoreError
from tmi_ops.objectives import reading
from tmi_ops.objectives.facts import LogicalBackup
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.serving import fleet_definitions
from tmi_ops.settings import load_settings

NAME = "production/billing"
GUARD = "production__billing__logical_backup_guard"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is not there: alerts are kept on this machine, and dumps are told by `dumps`."""
    monkeypatch.delenv("TMI_ENV", raising=False)
    monkeypatch.delenv("DAGSTER_PG_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3", "key")
    (tmp_path / "tmi-ops.toml").write_text(
        "[environments.production]\n"
        'POSTGRES_HOST = "db.example.com"\nPOSTGRES_SSLMODE = "require"\nTMI_OPS_HOME = "home"\n'
        'TMI_OPS_S3_BUCKET = "backups"\nTMI_OPS_S3_ENDPOINT_URL = "http://127.0.0.1:9"\n'
        'TMI_OPS_S3_ACCESS_KEY_ID_ENV = "S3"\nTMI_OPS_S3_SECRET_ACCESS_KEY_ENV = "S3"\n'
        "[environments.production.databases.billing]\n"
    )
    monkeypatch.setattr(Environment, "open_store", lambda self: None)


@pytest.fixture
def fleet() -> Definitions:
    return fleet_definitions(("production", NAME))


def look(fleet: Definitions, cursor: str | None = None) -> SensorResult | SkipReason:
    with build_sensor_context(
        instance=DagsterInstance.ephemeral(),
        cursor=cursor,
        definitions=fleet,
    ) as context:
        said = fleet.resolve_sensor_def(GUARD)(context)
    assert isinstance(said, SensorResult | SkipReason)
    return said


def dumps_are(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, str]) -> None:
    now = datetime.now(UTC)
    dumps = tuple(
        LogicalBackup(f"dump-{hours:g}", now - timedelta(hours=hours), 1, 1, outcome)  # type: ignore[arg-type]
        for hours, outcome in found
    )
    monkeypatch.setattr(reading, "read_dumps", lambda settings, store: dumps)


def open_alerts() -> dict[str, str]:
    records = AlertService(load_settings(of=NAME)).records()
    return {record.alert.key: record.alert.to_do for record in records if record.is_open}


def test_fresh_dumps_begin_nothing_and_are_not_looked_at_again_at_once(
    fleet: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps_are(monkeypatch, (5, "proven"))
    first = look(fleet)
    assert isinstance(first, SensorResult)
    assert not first.run_requests
    assert open_alerts() == {}
    again = look(fleet, first.cursor)
    assert isinstance(again, SkipReason)
    assert "Met at the last check" in (again.skip_message or "")


def test_an_old_dump_is_followed_by_a_new_one_of_this_database_and_then_by_an_alert(
    fleet: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps_are(monkeypatch, (40, "proven"))
    first = look(fleet)
    assert isinstance(first, SensorResult)
    (request,) = first.run_requests or []
    assert request.job_name == "production__billing__logical_backup"
    assert open_alerts() == {}, "nobody need be told of what is being mended"

    dumps_are(monkeypatch, (70, "proven"))
    second = look(fleet, first.cursor)
    assert isinstance(second, SensorResult)
    assert not second.run_requests, "the first has an hour"
    assert set(open_alerts()) == {"logical-backups"}

    dumps_are(monkeypatch, (0, "proven"), (70, "proven"))
    look(fleet, second.cursor)
    assert open_alerts() == {}


def test_one_that_only_wants_a_proof_is_proven(fleet: Definitions, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps_are(monkeypatch, (1, "not proven"))
    first = look(fleet)
    assert isinstance(first, SensorResult)
    (request,) = first.run_requests or []
    assert request.job_name == "production__billing__verify_backup"
    config = request.run_config["ops"]["production__billing__backup__logical_verified"]["config"]
    assert config == {"backup": "dump-1"}
    assert "logical-backups" in open_alerts(), "nothing proven is a breach"


def test_a_store_that_cannot_be_read_is_told_of(fleet: Definitions, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(settings: object, store: object) -> tuple[LogicalBackup, ...]:
        raise StoreError("The store is away.")

    monkeypatch.setattr(reading, "read_dumps", away)
    said = look(fleet)
    assert isinstance(said, SensorResult)
    assert open_alerts() == {"logical-backups": "tmi-ops doctor"}


def test_its_cluster_is_guarded_once(fleet: Definitions) -> None:
    names = {sensor.name for sensor in fleet.get_repository_def().sensor_defs if sensor.name.endswith("_guard")}
    assert names == {"production__rpo_guard", "production__rto_guard", "production__wal_stream_guard", GUARD}
