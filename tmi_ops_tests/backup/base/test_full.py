from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyrage
import pytest
import zstandard

from tmi_ops.backup import base
from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.errors import StoreError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.backup_documents import read_manifest
from tmi_ops.store.catalogue import find_backup, list_backups
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, Progress, make_place, physical_cluster, settings_for, slots
from tmi_ops_tests.raw_s3 import key_ending, read_raw

pytestmark = pytest.mark.slow


def test_a_full_backup_is_in_the_catalogue_with_everything_a_restore_needs(
    source: Settings, store: ObjectStore
) -> None:
    manifest = back_up_base(source, store, SilentReport())
    assert read_manifest(store, manifest.backup_id) == manifest
    assert (manifest.format, manifest.chain, manifest.parent, manifest.full_because) == ("full", (), None, None)
    assert {item.name for item in manifest.objects} == {"base.tar.zst", "backup_manifest"}
    assert manifest.system_identifier.isdigit()
    assert manifest.timeline == 1
    assert manifest.data_checksums
    assert manifest.from_standby is False
    assert manifest.wal_segment_size == 16 << 20
    assert manifest.cluster_size > 20_000 * 960
    assert manifest.superuser == source.postgres.user
    assert manifest.started_at < manifest.consistent_at
    assert slots(source.postgres) == []


def test_the_servers_manifest_is_kept_as_it_was_sent_and_names_the_wal_the_backup_carries(
    source: Settings, store: ObjectStore
) -> None:
    manifest = back_up_base(source, store, SilentReport())
    said = read_raw(source.store, key_ending(source.store, "backup_manifest"))
    facts = json.loads(said)
    assert facts["Manifest-Checksum"] == hashlib.sha256(said[: said.index(b'"Manifest-Checksum"')]).hexdigest()
    assert facts["WAL-Ranges"] == [{"Timeline": 1, "Start-LSN": manifest.start_lsn, "End-LSN": manifest.stop_lsn}]
    item = next(item for item in manifest.objects if item.name == "backup_manifest")
    assert hashlib.sha256(said).hexdigest() == item.sha256


def test_both_kinds_are_listed_and_each_is_found_as_what_it_is(source: Settings, store: ObjectStore) -> None:
    taken = back_up_base(source, store, SilentReport())
    dumped = back_up_logical(source, store, "custom", SilentReport())
    assert {entry.manifest.backup_id for entry in list_backups(store)} == {taken.backup_id, dumped.backup_id}
    assert [entry.manifest for entry in list_backups(store, kinds=("base",))] == [taken]
    assert find_backup(store, "latest") == dumped
    with pytest.raises(StoreError, match="is a base backup"):
        find_backup(store, taken.backup_id)


def test_progress_is_the_servers_own_and_reaches_what_it_announced(source: Settings, store: ObjectStore) -> None:
    report = Progress()
    manifest = back_up_base(source, store, report)
    assert report.totals == {"base backup": manifest.cluster_size}
    assert report.done["base backup"] >= manifest.cluster_size


def test_the_age_recipient_gets_the_data_and_the_servers_manifest_stays_readable_for_the_next_backup(
    source: Settings, tmp_path: Path
) -> None:
    identity = pyrage.x25519.Identity.generate()
    key_file = tmp_path / "key.txt"
    key_file.write_text(f"{identity}\n")
    encrypted = source.store.model_copy(
        update={"age_recipients": (str(identity.to_public()),), "age_identity_file": None}
    )
    settings = source.model_copy(update={"store": encrypted})
    store = open_store(encrypted, settings.environment)
    full = back_up_base(settings, store, SilentReport())
    assert {item.name: item.encrypted for item in full.objects} == {"base.tar.zst": True, "backup_manifest": False}
    assert read_raw(encrypted, key_ending(encrypted, "base.tar.zst")).startswith(b"age-encryption.org/v1")
    # No private key is configured, and the incremental backup still finds what it builds upon.
    takes_increments = full.server_version_num // 10000 >= FIRST_TO_SUMMARIZE
    next_one = back_up_base(settings, store, SilentReport(), incremental=True)
    assert next_one.parent == (full.backup_id if takes_increments else None)


def test_a_tablespace_becomes_an_object_of_its_own_with_its_place_recorded(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path) as spread:
        place = make_place(tmp_path / "a place", spread)
        settings = settings_for(spread.address, store_settings, tmp_path / "home")
        with connect(settings.postgres) as connection:
            connection.execute(f"CREATE TABLESPACE fast LOCATION '{place}'")
            connection.execute("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 1000)")
        manifest = back_up_base(settings, open_store(settings.store, settings.environment), SilentReport())
    (tablespace,) = manifest.tablespaces
    assert tablespace.location == str(place)
    assert tablespace.object_name == f"{tablespace.oid}.tar.zst"
    assert {item.name for item in manifest.objects} == {"base.tar.zst", tablespace.object_name, "backup_manifest"}


def test_a_server_that_cannot_compress_is_compressed_for(
    source: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An absurd number of workers is what this server refuses; zstd of one thread is then asked for, and taken.
    monkeypatch.setattr(base, "SERVER_ZSTD_WORKERS", 100_000)
    assert back_up_base(source, store, SilentReport()).total_size > 0
    # A level that zstd does not have is refused in every form: the tar comes plain and is compressed here.
    monkeypatch.setattr(base, "ZSTD_LEVEL", 1000)
    manifest = back_up_base(source, store, SilentReport())
    assert "base.tar.zst" in {item.name for item in manifest.objects}
    tar = read_raw(source.store, f"{source.store.prefix}/development/base/{manifest.backup_id}/base.tar.zst")
    with zstandard.ZstdDecompressor().stream_reader(tar) as reader:
        assert reader.read(512)[257:262] == b"ustar"
