"""A bucket that ransomware cannot empty: the policies of docs/iam and Object Lock, on a server that enforces both."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.drill.evidence import FOLDER as DRILLS
from tmi_ops.errors import StoreError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.retention.execution import execute_retention
from tmi_ops.retention.holds import hold_backup, release_backup
from tmi_ops.retention.locking import LOCK_REASON, extend_locks
from tmi_ops.retention.plan import Decision, RetentionPlan
from tmi_ops.retention.planning import plan_retention
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import Retain, Settings, StoreSettings
from tmi_ops.store.catalogue import find_backup, list_backups
from tmi_ops.store.guarding import locked_until, may_abort_uploads, may_delete, may_extend_locks
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal import open_upload, pieces
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.uploads import uploading
from tmi_ops_tests.raw_s3 import raw_client
from tmi_ops_tests.retention.stored import LEAN, removing, write_backup, write_base
from tmi_ops_tests.store.own_keys import BUCKET, ENVIRONMENT, OwnKeys, server_with_policies

pytestmark = pytest.mark.slow
REPORT = SilentReport()
RETAIN = Retain(period=timedelta(days=30), mode="COMPLIANCE")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKeys]:
    with server_with_policies(tmp_path_factory.mktemp("own-keys")) as found:
        yield found


def opened(settings: StoreSettings, retain: Retain | None = None) -> ObjectStore:
    return open_store(settings.model_copy(update={"retain": retain}), ENVIRONMENT)


def versions(keys: OwnKeys, prefix: str) -> list[tuple[str, str]]:
    listed = raw_client(keys.admin).list_object_versions(Bucket=BUCKET, Prefix=f"tmi-ops/{ENVIRONMENT}/{prefix}")
    return [(item["Key"], item["VersionId"]) for item in listed.get("Versions", [])]


def test_each_key_does_its_work_and_not_anothers(keys: OwnKeys, settings: Settings) -> None:
    """Back up, prove, hold, release and prune, each with its own key and nothing more."""

    def of(store: StoreSettings) -> Settings:
        return settings.model_copy(update={"store": store})

    writer, prover, pruner = map(opened, (keys.writer, keys.prover, keys.pruner))
    made = back_up_logical(of(keys.writer), writer, "custom", REPORT)
    back_up_base(of(keys.writer), writer, REPORT)
    result = verify_backup(of(keys.prover), prover, find_backup(prover, made.backup_id), REPORT)
    assert result.verification.outcome == "proven"
    hold_backup(pruner, made.backup_id, "the audit")
    release_backup(pruner, made.backup_id)
    plan = plan_retention(read_facts(pruner), settings.retention, datetime.now(UTC))
    assert len(plan.kept) == 2
    execute_retention(plan, pruner, REPORT)
    assert len(list_backups(writer)) == 2


@pytest.mark.parametrize(("purpose", "may"), [("writer", False), ("prover", False), ("pruner", True)])
def test_asked_about_what_is_not_there_the_server_tells_what_a_key_may(keys: OwnKeys, purpose: str, may: bool) -> None:
    store = opened(getattr(keys, purpose))
    assert may_delete(store) is may
    # What the server answers about an upload or an object that is not there is no promise.
    assert may_extend_locks(store, RETAIN, datetime.now(UTC)) is None
    assert may_abort_uploads(store) is None


@pytest.mark.parametrize("purpose", ["writer", "prover"])
def test_who_steals_a_key_that_does_not_prune_removes_nothing(keys: OwnKeys, purpose: str) -> None:
    opened(keys.writer).put("logical/x/victim", b"rows")
    thief = raw_client(getattr(keys, purpose))
    key = f"tmi-ops/{ENVIRONMENT}/logical/x/victim"
    _, version = versions(keys, "logical/x/victim")[-1]
    for words in ({}, {"VersionId": version}):
        with pytest.raises(ClientError, match="AccessDenied"):
            thief.delete_object(Bucket=BUCKET, Key=key, **words)
    answer = thief.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})
    assert answer["Errors"][0]["Code"] == "AccessDenied"


def test_a_key_writes_nothing_that_is_not_of_its_purpose(keys: OwnKeys) -> None:
    for settings, key in (
        (keys.prover, "logical/20261127T000000Z-logical-0000/manifest.json"),
        (keys.prover, "wal/7/00000001/000000010000000000000001.zst"),
        (keys.pruner, "logical/20261127T000000Z-logical-0000/manifest.json"),
        (keys.pruner, "base/20261127T000000Z-base-0000/verdict-x.json"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            raw_client(settings).put_object(Bucket=BUCKET, Key=f"tmi-ops/{ENVIRONMENT}/{key}", Body=b"")


@pytest.mark.parametrize("purpose", ["writer", "prover", "pruner"])
def test_no_key_reads_or_writes_another_environment(keys: OwnKeys, purpose: str) -> None:
    raw_client(keys.admin).put_object(Bucket=BUCKET, Key="tmi-ops/production/secret", Body=b"rows")
    client = raw_client(getattr(keys, purpose))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key="tmi-ops/production/secret")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=BUCKET, Key="tmi-ops/production/secret", Body=b"")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.list_objects_v2(Bucket=BUCKET, Prefix="tmi-ops/production/")


def test_what_is_stored_under_retain_cannot_be_removed_by_any_key(keys: OwnKeys) -> None:
    writer = opened(keys.writer, RETAIN)
    large = iter([b"x" * (6 << 20)] * 4)
    writer.upload("base/20261127T000000Z-base-0001/base.tar.zst", large)
    writer.put("wal/7/00000001/000000010000000000000001.zst", b"wal")
    writer.put("wal/7/00000001/000000010000000000000002.partial.zst", b"open")
    end = datetime.now(UTC) + RETAIN.period
    for key in ("base/20261127T000000Z-base-0001/base.tar.zst", "wal/7/00000001/000000010000000000000001.zst"):
        until = locked_until(opened(keys.pruner), key)
        assert until is not None and abs(until - end) < timedelta(minutes=1)
        for name, version in versions(keys, key):
            for settings in (keys.pruner, keys.admin):
                with pytest.raises(ClientError, match="AccessDenied"):
                    raw_client(settings).delete_object(
                        Bucket=BUCKET, Key=name, VersionId=version, BypassGovernanceRetention=True
                    )
    assert locked_until(writer, "wal/7/00000001/000000010000000000000002.partial.zst") is None


def test_what_stays_is_locked_for_longer_before_its_lock_ends_chains_and_wal_included(keys: OwnKeys) -> None:
    writer, pruner = opened(keys.writer, RETAIN), opened(keys.pruner, RETAIN)
    full, forgotten = write_base(writer), write_base(writer)
    incremental = write_base(writer, full.backup_id)
    segment = f"wal/{full.system_identifier}/00000001/000000010000000000000001.zst"
    writer.put(segment, b"wal")
    kept = [f"base/{one.backup_id}/base.tar.zst" for one in (full, incremental)]
    locked = [*kept, segment, f"base/{forgotten.backup_id}/base.tar.zst"]
    first = {key: locked_until(pruner, key) for key in locked}
    facts, now = read_facts(pruner), datetime.now(UTC)
    reasons = {
        incremental.backup_id: "the last 1",
        full.backup_id: f"{incremental.backup_id} depends on it",
        forgotten.backup_id: f"{LOCK_REASON}then",
    }
    by_id = {backup.backup_id: backup for backup in facts.backups}
    plan = RetentionPlan(LEAN, tuple(Decision(by_id[one], (reason,)) for one, reason in reasons.items()))
    assert extend_locks(pruner, facts, plan, REPORT, now) == 0, "all of it is locked for long enough"
    later = now + RETAIN.period * 2 / 3
    assert extend_locks(pruner, facts, plan, REPORT, later) > 0
    for key in (*kept, segment):
        before, after = first[key], locked_until(pruner, key)
        assert before is not None and after is not None
        assert abs(after - before - RETAIN.period * 2 / 3) < timedelta(minutes=2), key
    assert locked_until(pruner, locked[-1]) == first[locked[-1]], "what its lock alone keeps is let go when that ends"


def test_only_the_pruners_key_removes_a_backup(keys: OwnKeys) -> None:
    writer, prover, pruner = map(opened, (keys.writer, keys.prover, keys.pruner))
    backup_id = write_backup(writer, None)
    plan = removing(pruner, backup_id)
    for thief in (writer, prover):
        with pytest.raises(StoreError, match="delete"):
            execute_retention(replace(plan, has_object_lock=False), thief, REPORT)
        assert find_backup(pruner, backup_id).backup_id == backup_id
    assert execute_retention(plan, pruner, REPORT).backups == 1
    assert not list(pruner.list_objects(f"logical/{backup_id}/"))


def test_evidence_of_a_drill_may_be_written_by_the_prover(keys: OwnKeys) -> None:
    opened(keys.prover, RETAIN).put(f"{DRILLS}/20261127T000000Z-drill-0000.json", b"{}")
    assert locked_until(opened(keys.prover), f"{DRILLS}/20261127T000000Z-drill-0000.json") is not None


def test_pieces_of_an_open_segment_leave_nothing_behind_in_a_bucket_that_keeps_versions(
    keys: OwnKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the writer's key alone: what was folded goes by its version, and at the end all of it; nothing else may."""
    monkeypatch.setattr(open_upload, "REMOVED_AFTER_S", 0.0)
    monkeypatch.setattr(pieces, "FOLDED_AT_ONCE", 4)
    writer, segment = opened(keys.writer, RETAIN), Segment(1, 9 << 20, 1 << 20)
    content = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, segment.start, 0, 7, segment.size, 8192).ljust(
        segment.size, b"w"
    )
    with uploading(writer, "7", segment.start, segment.size) as uploads:
        here = OpenSegment(segment)
        for number in range(1, 12):
            here.add(here.end, memoryview(content)[here.filled : number * 1000])
            uploads.partial(here)
            uploads.drain()
        assert versions(keys, f"wal/7/00000001/{segment.name}.partial")
        here.add(here.end, memoryview(content)[here.filled :])
        uploads.segment(segment, here.hand_over())
        uploads.drain()
    everything = raw_client(keys.admin).list_object_versions(
        Bucket=BUCKET, Prefix=f"tmi-ops/{ENVIRONMENT}/wal/7/00000001/{segment.name}"
    )
    assert [item["Key"].rpartition("/")[2] for item in everything["Versions"]] == [f"{segment.name}.zst"]
    assert not everything.get("DeleteMarkers")
