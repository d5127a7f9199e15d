"""A backup of an older major version is restored into a newer server and is equal there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import found_programs, server_programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.restore import execute_restore, plan_restore
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore

pytestmark = pytest.mark.slow

ALARMS = Path(__file__).parent / "cases" / "alarms.sql"


@pytest.mark.parametrize(("old", "new"), [(15, 17), (17, 18)])
def test_a_backup_of_an_older_major_is_equal_in_a_newer_one(
    settings: Settings, store: ObjectStore, tmp_path: Path, old: int, new: int
) -> None:
    here = {programs.major for programs in found_programs()}
    if not {old, new} <= here:
        pytest.skip(f"this machine has PostgreSQL {sorted(here)}")
    tmp_path.chmod(0o755)
    with (
        scratch_cluster(server_programs(old), tmp_path / "old") as source,
        scratch_cluster(server_programs(new), tmp_path / "new") as target,
    ):
        postgres = source.address.model_copy(update={"database": "tmi"})
        migrate(postgres, SilentReport())
        with connect(postgres) as connection:
            connection.execute("CREATE SCHEMA other")
            connection.execute("SET search_path TO other, public")
            connection.execute(ALARMS.read_bytes())
        manifest = back_up_logical(settings.model_copy(update={"postgres": postgres}), store, "custom", SilentReport())
        elsewhere = settings.model_copy(update={"postgres": target.address})
        plan = plan_restore(elsewhere, manifest, "tmi", replace=False)
        result = execute_restore(elsewhere, store, plan, SilentReport())
    assert result.comparison.differences == ()
    assert len(result.comparison.fingerprints) > 52
