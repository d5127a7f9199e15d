"""The deeds of adoption and leaving lose nothing, and believe no backup of another server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from benchmarks.cost.history import CLUSTER, write_backups
from tmi_ops.adoption import leaving
from tmi_ops.adoption.execution import Adoption
from tmi_ops.adoption.state import Protection, read_protection
from tmi_ops.adoption.steps import StepName
from tmi_ops.cli.init import _asked
from tmi_ops.errors import OpsError, RecoveryError, StoreError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, StoreSettings, load_settings
from tmi_ops.store.objects import open_store


def test_what_somebody_built_upon_our_schema_is_not_taken_away_with_it(
    database: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings({"POSTGRES_DB": database.database, "TMI_ENV": "development"}).model_copy(
        update={"postgres": database}
    )
    monkeypatch.setattr(leaving, "read_our_server", lambda _: SimpleNamespace(slot=None))
    with connect(database) as connection:
        connection.execute("CREATE SCHEMA tmi_ops")
        connection.execute("CREATE TABLE tmi_ops.heartbeat (id bigint)")
        connection.execute("CREATE DOMAIN tmi_ops.code AS text")
        connection.execute("CREATE TABLE orders AS SELECT 'a'::tmi_ops.code AS code")
        connection.execute("CREATE VIEW beats AS SELECT * FROM tmi_ops.heartbeat")
    for left in ("view beats", "tmi_ops.code"):
        with pytest.raises(RecoveryError, match=f"because other objects depend on it.*{left}"):
            leaving.leave(settings, leaving.plan_leaving(settings))
        with connect(database) as connection:
            assert connection.execute("SELECT code FROM orders").fetchone() == ("a",)
            connection.execute("DROP VIEW IF EXISTS beats")
    with connect(database) as connection:
        connection.execute("DROP TABLE orders; DROP DOMAIN tmi_ops.code")
    leaving.leave(settings, leaving.plan_leaving(settings))
    assert leaving.plan_leaving(settings) == ()


def test_a_database_of_the_same_name_on_another_server_is_not_protected_by_its_backups(
    store_settings: StoreSettings,
) -> None:
    store = open_store(store_settings, "development")
    write_backups(store, 2, segments=10)
    settings = load_settings({"POSTGRES_DB": "tmi", "TMI_ENV": "development"})
    ours = read_protection(settings, store, CLUSTER)
    assert (bool(ours.base), bool(ours.logical), ours.verified) == (True, True, True)
    assert read_protection(settings, store, "7000000000000000002") == Protection()


def test_keys_that_were_made_before_an_interruption_are_used_and_a_strangers_bucket_is_not(tmp_path: Path) -> None:
    env_file, given = tmp_path / ".env.development", {"TMI_OPS_HOME": str(tmp_path), "TMI_OPS_S3_BUCKET": "b"}
    adoption = Adoption(lambda _: load_settings(given), lambda: given, env_file, given, 0, SilentReport())
    adoption.do(StepName.KEYS)
    first = env_file.read_text()
    env_file.unlink()  # as if it had ended before it wrote where they are
    adoption.do(StepName.KEYS)
    assert env_file.read_text() == first
    (tmp_path / "keys" / "trusted.keys").unlink()
    with pytest.raises(OpsError, match="already contains keys"):
        adoption.do(StepName.KEYS)

    class Taken:
        exceptions = SimpleNamespace(ClientError=ClientError)

        def create_bucket(self, **_: object) -> None:
            raise ClientError({"Error": {"Code": "BucketAlreadyExists"}}, "CreateBucket")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tmi_ops.store.s3.bucket.connect_store", lambda *_, **__: Taken())
        with pytest.raises(StoreError, match="belongs to another AWS account"):
            adoption.do(StepName.BUCKET)


def test_a_store_that_is_a_directory_is_made_and_nothing_of_a_server_is_asked(tmp_path: Path) -> None:
    given = {"TMI_OPS_HOME": str(tmp_path), "TMI_OPS_STORE_DIRECTORY": str(tmp_path / "disk" / "backups")}
    adoption = Adoption(lambda _: load_settings(given), lambda: given, tmp_path / ".env", given, 0, SilentReport())
    assert adoption.do(StepName.BUCKET) == f"{tmp_path}/disk/backups/tmi-ops exists"
    assert adoption.do(StepName.BUCKET)
    known = {**given, "TMI_DATABASE_URL": "postgresql://db"}
    assert _asked(known, ask=False) == {}
    adoption.do(StepName.KEYS)
    (sheet,) = (tmp_path / "keys").glob("*sheet*")
    assert f"Backups:      {tmp_path}/disk/backups/tmi-ops/development/\n" in sheet.read_text()
