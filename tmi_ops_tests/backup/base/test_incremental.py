from __future__ import annotations

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, Notes, set_parameter
from tmi_ops_tests.raw_s3 import delete_raw

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server_that_takes_increments")]


@pytest.fixture
def server_that_takes_increments(programs: Programs) -> None:
    if programs.major < FIRST_TO_SUMMARIZE:
        pytest.skip(f"PostgreSQL {programs.major} takes no incremental backups; 17 and later do")


def test_an_incremental_backup_holds_what_changed_and_names_its_chain(source: Settings, store: ObjectStore) -> None:
    full = back_up_base(source, store, SilentReport())
    with connect(source.postgres) as connection:
        connection.execute("UPDATE kept SET noise = 'changed' WHERE i <= 100")
    second = back_up_base(source, store, SilentReport(), incremental=True)
    third = back_up_base(source, store, SilentReport(), incremental=True)
    assert (second.format, second.parent, second.chain) == ("incremental", full.backup_id, (full.backup_id,))
    assert third.chain == (full.backup_id, second.backup_id)
    assert second.total_size < full.total_size / 5


def test_a_chain_at_its_longest_is_followed_by_a_full_backup(source: Settings, store: ObjectStore) -> None:
    report = Notes()
    formats = [back_up_base(source, store, report, incremental=True, longest_chain=2).format for _ in range(4)]
    assert formats == ["full", "incremental", "full", "incremental"]
    assert "no base backup yet" in report.noted[0]
    assert "reached its maximum of 2" in report.noted[1]


def test_a_chain_whose_link_lost_an_object_is_not_continued(source: Settings, store: ObjectStore) -> None:
    full = back_up_base(source, store, SilentReport())
    back_up_base(source, store, SilentReport(), incremental=True)
    delete_raw(source.store, f"{source.store.prefix}/development/base/{full.backup_id}/base.tar.zst")
    third = back_up_base(source, store, SilentReport(), incremental=True)
    assert third.format == "full"
    assert full.backup_id in (third.full_because or "")


def test_without_wal_summaries_a_full_backup_is_taken_and_the_line_to_run_is_shown(
    source: Settings, store: ObjectStore
) -> None:
    back_up_base(source, store, SilentReport())
    set_parameter(source.postgres, "summarize_wal", "off")
    try:
        report = Notes()
        second = back_up_base(source, store, report, incremental=True)
    finally:
        set_parameter(source.postgres, "summarize_wal", "on")
    assert second.format == "full"
    assert "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();" in report.noted[0]


def test_summaries_that_are_gone_make_the_server_refuse_and_a_full_backup_is_taken(
    cluster: RunningCluster, source: Settings, store: ObjectStore
) -> None:
    back_up_base(source, store, SilentReport())
    set_parameter(source.postgres, "summarize_wal", "off")
    with connect(source.postgres) as connection:
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    for summary in (cluster.directory / "pg_wal" / "summaries").glob("*.summary"):
        summary.unlink()
    set_parameter(source.postgres, "summarize_wal", "on")
    second = back_up_base(source, store, SilentReport(), incremental=True)
    assert second.format == "full"
    assert "the server cannot take an increment to" in (second.full_because or "")
    assert back_up_base(source, store, SilentReport(), incremental=True).parent == second.backup_id
