"""The attack by who can only read the bucket: a PIN of four digits was found from its table's digest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.restore_point import create_restore_point
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.retention.holds import SEALED_REASON as SEALED_HOLD
from tmi_ops.retention.holds import hold_backup, list_holds, release_backup
from tmi_ops.runbooks.execution import begin
from tmi_ops.runbooks.logbook import find_run
from tmi_ops.settings import Settings
from tmi_ops.store.backup_documents import read_manifest, record_verification, whole_manifest
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import SEALED_REASON
from tmi_ops.store.objects import open_store
from tmi_ops.store.restore_points import read_restore_point
from tmi_ops_tests.runbooks.test_execution import PLAN
from tmi_ops_tests.store.conftest import AgeKeys, RawBucket, with_age

pytestmark = pytest.mark.slow
REPORT = SilentReport()
SECRET = "salaries_of_the_board"


def test_nothing_that_describes_content_lies_in_an_encrypted_store(
    settings: Settings, age_keys: AgeKeys, raw: RawBucket, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"store": with_age(settings.store, age_keys)})
    store = open_store(settings.store, settings.environment)
    without_key = replace(store, identity_file=None)
    with connect(settings.postgres) as connection:
        connection.execute(f"CREATE TABLE {SECRET} (pin text)")
        connection.execute(f"INSERT INTO {SECRET} VALUES ('4711')")
    made = back_up_logical(settings, without_key, "custom", REPORT)
    assert f"public.{SECRET}" in made.fingerprints, "who takes it still sees what it holds"
    create_restore_point(settings, without_key, "before", REPORT)
    plan = PLAN.model_copy(update={"subject": SECRET})
    begin(settings, without_key, plan, REPORT)
    result = verify_backup(settings, store, read_manifest(store, made.backup_id), REPORT)
    assert (result.verification.outcome, result.verification.rows) == ("proven", 1)
    whole = whole_manifest(store, read_manifest(store, made.backup_id))
    assert whole.fingerprints == made.fingerprints
    assert (
        result.verification.manifest_sha256
        == hashlib.sha256(raw.read(f"logical/{made.backup_id}/manifest.json")).hexdigest()
    )
    failed = result.verification.model_copy(
        update={"outcome": "failed", "reasons": (f"{SECRET} differs",), "verified_at": datetime.now(UTC)}
    )
    record_verification(store, failed)
    hold_backup(without_key, made.backup_id, SECRET)

    for key in raw.keys():  # noqa: SIM118 - a bucket is no mapping
        body = raw.read(key)
        assert SECRET.encode() not in body, key
    fingerprint = made.fingerprints[f"public.{SECRET}"]
    clear = [raw.read(key) for key in sorted(raw.keys()) if not raw.read(key).startswith(b"age-encryption.org")]
    assert not any(fingerprint.digest.encode() in body for body in clear)

    (entry,) = list_backups(without_key)
    assert entry.verification is not None
    assert (entry.verification.outcome, entry.verification.reasons) == ("failed", (SEALED_REASON,)), (
        "retention reads that much"
    )
    (known,) = list_backups(store)
    assert known.verification is not None and known.verification.reasons == (f"{SECRET} differs",)
    assert [hold.reason for hold in (*list_holds(store), *list_holds(without_key))] == [SECRET, SEALED_HOLD]
    point, without = read_restore_point(store, "before"), read_restore_point(without_key, "before")
    assert point is not None and without is not None
    assert f"public.{SECRET}" in point.fingerprints and not without.fingerprints
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere"})
    assert find_run(elsewhere, store)[1].plan.subject == SECRET, "another machine with the key goes on"
    release_backup(without_key, made.backup_id)
    assert not [key for key in raw.keys() if "hold.json" in key]  # noqa: SIM118
