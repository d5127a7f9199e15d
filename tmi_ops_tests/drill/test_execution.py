"""Complete drills of a real cluster's backups, with a real store."""

from __future__ import annotations

import secrets
import shutil
from collections import namedtuple
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tmi_ops.drill.evidence import OBJECTIVE_CHECKS, evidence_keys, list_drills, read_evidence
from tmi_ops.drill.execution import Drill, run_drill
from tmi_ops.drill.planning import prepare_drill
from tmi_ops.errors import DiskSpaceError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Objectives, Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import open_store
from tmi_ops_tests.drill.lives import NAME, Lived, left_behind
from tmi_ops_tests.physical import Notes
from tmi_ops_tests.raw_s3 import raw_client, stored_keys

pytestmark = pytest.mark.slow


def drill(settings: Settings, target: Target | None = None, seed: int | None = None) -> Drill:
    store = open_store(settings.store, settings.environment)
    plan = prepare_drill(settings, store, SilentReport(), target=target, seed=seed)
    return run_drill(settings, store, plan, SilentReport())


@pytest.fixture
def own(lived: Lived) -> Iterator[Settings]:
    """The same backups in a separate store, to be damaged."""
    source = lived.settings.store
    copy = source.model_copy(update={"prefix": f"drill-{secrets.token_hex(6)}"})
    client = raw_client(source)
    for key in stored_keys(source):
        target = copy.prefix + key.removeprefix(source.prefix)
        if "/verdict-" not in key and "drill" not in key:
            client.copy_object(Bucket=copy.bucket, Key=target, CopySource={"Bucket": source.bucket, "Key": key})
    yield lived.settings.model_copy(update={"store": copy})
    assert left_behind(lived.settings) == []


def test_a_drill_to_a_restore_point_proves_every_row_and_leaves_evidence_and_nothing_else(
    lived: Lived, own: Settings
) -> None:
    done = drill(own, Target(name=NAME))
    evidence, store = done.evidence, open_store(own.store, own.environment)
    assert evidence.outcome == "passed", evidence.reasons
    assert [check.name for check in evidence.checks if check.outcome != "passed"] == (
        [] if lived.base.server_version_num >= 140000 else ["amcheck"]
    )
    assert "6,000" not in evidence.check("fingerprints").detail
    assert evidence.copy_ is not None
    assert evidence.copy_.rows["journal"] == 5000
    assert "3 heartbeats without a gap" in evidence.check("heartbeat").detail
    assert {"plan", "fetch", "extract", "check files", "replay", "sync", "start", "verify"} <= set(evidence.phases)
    assert list(evidence.phases)[-1] == "verify"
    assert evidence.rto_seconds == pytest.approx(sum(evidence.phases.values()))
    assert 0 < evidence.recovery_seconds < evidence.rto_seconds
    assert evidence.backups[0].backup_id == evidence.backup_id == lived.base.backup_id
    assert list_drills(store) == [evidence.drill_id]
    assert read_evidence(store, evidence.drill_id) == evidence
    for key in evidence_keys(evidence):
        assert b"<!doctype html>" in store.get_bytes(f"{key}.html")
        assert store.get_bytes(f"{key}.json").startswith(b"{")
    verification = next(
        entry.verification for entry in list_backups(store) if entry.manifest.backup_id == lived.base.backup_id
    )
    assert verification is not None
    assert (verification.outcome, verification.restore_seconds) == ("proven", evidence.recovery_seconds)


def test_a_random_drill_is_the_same_one_again_with_its_seed(lived: Lived) -> None:
    plans = [prepare_drill(lived.settings, lived.store, SilentReport(), seed=seed).target for seed in (7, 7, 8)]
    assert plans[0] == plans[1] != plans[2]
    assert plans[0].time is not None
    assert lived.base.consistent_at <= plans[0].time <= lived.archived_at


def test_the_end_of_the_wal_brings_every_beat_and_row_back(lived: Lived, own: Settings) -> None:
    evidence = drill(own, Target()).evidence
    assert evidence.outcome == "passed", evidence.reasons
    assert evidence.copy_ is not None
    assert evidence.copy_.rows["journal"] == 6000
    assert "4 heartbeats without a gap" in evidence.check("heartbeat").detail
    assert evidence.check("fingerprints").outcome == "not applicable"


def test_a_damaged_base_backup_fails_the_drill_is_marked_and_never_begun_with_again(
    lived: Lived, own: Settings
) -> None:
    client, store = raw_client(own.store), open_store(own.store, own.environment)
    (key,) = (key for key in stored_keys(own.store) if key.endswith("base.tar.zst"))
    whole = client.get_object(Bucket=str(own.store.bucket), Key=key)["Body"].read()
    damaged = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    client.put_object(Bucket=str(own.store.bucket), Key=key, Body=damaged)
    evidence = drill(own, Target()).evidence
    assert evidence.outcome == "failed"
    assert not evidence.sound
    assert "base.tar.zst is damaged" in evidence.check("recovery").detail
    assert {check.outcome for check in evidence.checks[1:7]} == {"not run"}
    assert evidence.copy_ is None
    (entry,) = list_backups(store, kinds=("base",))
    assert entry.verification is not None
    assert entry.verification.outcome == "failed"
    with pytest.raises(RecoveryError, match="No base backup"):
        drill(own)
    assert list_drills(store) == [evidence.drill_id]


def test_a_beat_that_the_source_has_and_the_copy_has_otherwise_fails_the_drill(lived: Lived, own: Settings) -> None:
    with connect(lived.cluster.address) as connection:
        connection.execute("UPDATE tmi_ops.heartbeat SET hash = repeat('0', 64) WHERE id = 2")
    try:
        evidence = drill(own, Target()).evidence
    finally:
        with connect(lived.cluster.address) as connection:
            connection.execute("UPDATE tmi_ops.heartbeat SET hash = %s WHERE id = 2", [lived.beats[1].hash])
    assert evidence.outcome == "failed"
    assert evidence.check("heartbeat").outcome == "failed"
    assert "different histories" in evidence.check("heartbeat").findings[0]
    assert not [
        entry for entry in list_backups(open_store(own.store, own.environment)) if entry.verification is not None
    ]


def test_missed_objectives_fail_the_drill_of_a_sound_backup(own: Settings) -> None:
    strict = Objectives(rpo=timedelta(microseconds=1), rto=timedelta(microseconds=1))
    evidence = drill(own.model_copy(update={"objectives": strict}), Target()).evidence
    assert (evidence.outcome, evidence.sound) == ("failed", True)
    assert [check.name for check in evidence.checks if check.outcome == "failed"] == list(OBJECTIVE_CHECKS)
    assert len(evidence.reasons) == 2


def test_where_the_living_server_is_gone_the_copy_is_judged_alone(own: Settings) -> None:
    gone = own.postgres.model_copy(update={"port": 1, "host": "127.0.0.1"})
    report = Notes()
    settings = own.model_copy(update={"postgres": gone})
    store = open_store(own.store, own.environment)
    done = run_drill(settings, store, prepare_drill(settings, store, report, target=Target()), report)
    assert done.evidence.sound, done.evidence.reasons
    assert "would not be noticed" in done.evidence.check("heartbeat").findings[0]
    assert any("checked without it" in note for note in report.noted)


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_fetched_and_no_evidence(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 1000))
    with pytest.raises(DiskSpaceError, match="are free"):
        drill(own, Target())
    assert list_drills(open_store(own.store, own.environment)) == []
