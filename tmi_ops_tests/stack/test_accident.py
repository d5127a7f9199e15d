from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import StoreSettings
from tmi_ops.stack.accident import TABLE, drop_a_table_and_bring_it_back
from tmi_ops_tests.physical import physical_cluster, settings_for


@pytest.mark.slow
def test_the_table_is_gone_from_the_running_database_and_its_rows_were_there_the_second_before(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server") as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path / "home")
        accident = drop_a_table_and_bring_it_back(settings, SilentReport())
        with connect(cluster.address) as connection:
            assert connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone() == (None,)
    assert accident.is_undone
    assert 0 < accident.rows_recovered < accident.rows_when_dropped
    assert accident.behind < 10
    assert set(accident.phases) >= {"fetch", "replay"}
    assert not any((tmp_path / "home" / "scratch").glob("accident*"))
