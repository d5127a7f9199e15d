"""Facts read from a real S3 server, holds, Object Lock, and a plan carried out there."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.progress import SilentReport
from tmi_ops.retention.execution import execute_retention
from tmi_ops.retention.holds import hold_backup, read_hold, release_backup
from tmi_ops.retention.plan import RetentionPlan
from tmi_ops.retention.planning import plan_retention
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import StoreSettings
from tmi_ops.store.backup_documents import new_backup_id
from tmi_ops.store.guarding import UNTIL_RELEASED, has_object_lock, locked_until
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.raw_s3 import raw_client, s3_of
from tmi_ops_tests.retention.stored import LEAN, removing, write_backup

NOW = datetime.now(UTC)


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings, "development")


def test_what_is_read_from_the_store_is_enough_to_plan_and_what_is_removed_is_gone_whole(store: ObjectStore) -> None:
    failed, verified = write_backup(store, "failed"), write_backup(store)
    store.put_bytes("logical/20200101T000000Z-logical-0000/dump", b"half")
    store.put_bytes("logical/not-a-backup/file", b"somebody's")
    facts = read_facts(store)
    assert {(item.backup_id, item.verification, item.objects) for item in facts.backups} == {
        (failed, "failed", 4),
        (verified, "proven", 4),
    }
    assert [half.backup_id for half in facts.half_made] == ["20200101T000000Z-logical-0000"]
    assert not plan_retention(facts, LEAN, datetime.now(UTC)).removed  # both lie within the window

    result = execute_retention(removing(store, failed), store, SilentReport())
    assert (result.backups, result.spared) == (1, [])
    assert not list(store.list_objects(f"logical/{failed}/"))
    assert list(store.list_objects("logical/not-a-backup/"))


def test_a_half_made_backup_is_swept_and_one_that_was_committed_meanwhile_is_not(store: ObjectStore) -> None:
    verified = write_backup(store)
    half = "20200101T000000Z-logical-0000"
    store.put_bytes(f"logical/{half}/dump", b"half")
    facts = read_facts(store)
    later = facts.half_made[0]
    plan = RetentionPlan(LEAN, (), half_made=(later, type(later)(verified, 1, 1, NOW)))
    result = execute_retention(plan, store, SilentReport())
    assert result.half_made == 1
    assert [item.what for item in result.spared] == [verified]
    assert not read_facts(store).half_made


def test_a_broken_manifest_stops_retention_before_anything_is_planned(store: ObjectStore) -> None:
    write_backup(store)
    store.put_bytes(f"logical/{new_backup_id('logical', NOW)}/manifest.json", b"{}")
    with pytest.raises(StoreError, match=r"manifest.json cannot be read"):
        read_facts(store)


def test_a_hold_is_beside_the_backup_and_comes_in_time_even_after_the_plan(store: ObjectStore) -> None:
    backup_id = write_backup(store)
    plan = removing(store, backup_id)
    hold_backup(store, backup_id, "audit")
    assert read_facts(store).backups[0].hold == read_hold(store, backup_id)
    with pytest.raises(ObjectExistsError, match="audit"):
        hold_backup(store, backup_id, "another reason")
    result = execute_retention(plan, store, SilentReport())
    assert [(item.what, item.because) for item in result.spared] == [
        (backup_id, "put under a hold after the plan was made")
    ]
    assert release_backup(store, backup_id).reason == "audit"
    with pytest.raises(ObjectMissingError):
        release_backup(store, backup_id)
    assert execute_retention(plan, store, SilentReport()).backups == 1


@pytest.fixture(scope="module")
def locked_bucket(s3: StoreSettings) -> str:
    bucket = f"locked-{secrets.token_hex(4)}"
    raw_client(s3).create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return bucket


@pytest.fixture
def locking_store(s3: StoreSettings, locked_bucket: str) -> ObjectStore:
    changes = {"bucket": locked_bucket, "prefix": f"tmi-ops-{secrets.token_hex(4)}"}
    return open_store(s3.model_copy(update=changes), "development")


def version_of(store: ObjectStore, key: str) -> str:
    listed = s3_of(store).client.list_object_versions(Bucket=s3_of(store).bucket, Prefix=f"{store.root}{key}")
    return str(listed["Versions"][0]["VersionId"])


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_an_object_under_object_lock_is_reported_and_kept(locking_store: ObjectStore, mode: str) -> None:
    store, client, bucket = locking_store, s3_of(locking_store).client, s3_of(locking_store).bucket
    backup_id = write_backup(store)
    plan = removing(store, backup_id)
    key = f"logical/{backup_id}/manifest.json"
    assert has_object_lock(store)
    assert locked_until(store, key) is None
    until = NOW.replace(microsecond=0) + timedelta(days=1)
    client.put_object_retention(
        Bucket=bucket, Key=f"{store.root}{key}", Retention={"Mode": mode, "RetainUntilDate": until}
    )
    result = execute_retention(plan, store, SilentReport())
    assert result.backups == 0
    assert result.spared[0].because == f"Object Lock until {until:%Y-%m-%d %H:%M} UTC"
    assert read_facts(store).backups[0].locked_until == until


def test_a_hold_has_the_store_refuse_to_delete_until_the_last_hold_is_released(locking_store: ObjectStore) -> None:
    store = locking_store
    backup_id = write_backup(store)
    hold_backup(store, backup_id, "audit")
    held = [item.key for item in store.list_objects(f"logical/{backup_id}/") if not item.key.endswith("hold.json")]
    assert len(held) > 2
    for key in held:
        assert locked_until(store, key) == UNTIL_RELEASED
        with pytest.raises(s3_of(store).client.exceptions.ClientError):
            s3_of(store).client.delete_object(
                Bucket=s3_of(store).bucket, Key=f"{store.root}{key}", VersionId=version_of(store, key)
            )
    release_backup(store, backup_id)
    assert {locked_until(store, key) for key in held} == {None}
    assert execute_retention(removing(store, backup_id), store, SilentReport()).backups == 1


def test_a_bucket_without_object_lock_says_so(store: ObjectStore) -> None:
    assert not has_object_lock(store)
