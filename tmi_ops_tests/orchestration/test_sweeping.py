from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.retention import orphans, planning
from tmi_ops.retention.orphans import find_orphans
from tmi_ops.settings import Settings
from tmi_ops.store.guarding import unfinished_uploads
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT
from tmi_ops_tests.orchestration.sensing import look_through
from tmi_ops_tests.raw_s3 import s3_of
from tmi_ops_tests.retention.stored import write_backup

NOW = datetime.now(UTC)
HALF_MADE = "20260101T000000Z-logical-0000"


@pytest.fixture
def store(as_variables: Settings) -> ObjectStore:
    """With a proven backup, a half-made one, and an upload that nobody will finish."""
    store = open_store(as_variables.store, ENVIRONMENT)
    write_backup(store)
    store.put_bytes(f"logical/{HALF_MADE}/dump", b"half")
    s3_of(store).client.create_multipart_upload(Bucket=s3_of(store).bucket, Key=f"{store.root}logical/other/dump")
    return store


def test_what_is_young_may_be_somebodys_work_and_what_is_old_is_an_orphan(store: ObjectStore) -> None:
    assert find_orphans(store, NOW) == []
    assert find_orphans(store, NOW + timedelta(days=2)) == [HALF_MADE]
    assert find_orphans(store, NOW + timedelta(days=8)) == ["logical/other/dump", HALF_MADE]


def test_orphans_and_what_a_dead_drill_left_are_noticed_and_swept_and_nothing_else(
    store: ObjectStore, as_variables: Settings, run_job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no orphans" in str(look_through("orphan_sweeper").skip_reason)
    left = as_variables.home / "scratch" / "drill-dead"
    left.mkdir(parents=True)
    monkeypatch.setattr(planning, "HALF_MADE_AFTER", timedelta(0))
    monkeypatch.setattr(planning, "UPLOAD_STALE_AFTER", timedelta(0))
    monkeypatch.setattr(orphans, "HALF_MADE_AFTER", timedelta(0))
    before = {item.key for item in store.list_objects("") if HALF_MADE not in item.key}
    (request,) = look_through("orphan_sweeper").run_requests or []
    assert request.run_key
    assert run_job("sweep_orphans").success
    assert not left.exists()
    assert unfinished_uploads(store) == []
    assert {item.key for item in store.list_objects("")} == before
    assert "no orphans" in str(look_through("orphan_sweeper").skip_reason)
