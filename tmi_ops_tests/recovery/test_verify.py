from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from tmi_ops.backup.dump import LOGICAL_FORMATS, LogicalFormat
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT
from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, ProgramError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery import load, verify
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.requirements import NotHereError, Requirements
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import ObjectStore
from tmi_ops_tests.raw_s3 import delete_raw, key_ending, read_raw, write_raw
from tmi_ops_tests.recovery.conftest import BackedUp

pytestmark = pytest.mark.slow

DUMP = "database.dump"


def _reasons(backed_up: BackedUp) -> str:
    result = verify_backup(backed_up.settings, backed_up.store, backed_up.manifest, SilentReport())
    assert result.verification.outcome == "failed"
    return "; ".join(result.verification.reasons)


@pytest.mark.parametrize("format_", LOGICAL_FORMATS)
def test_a_sound_backup_of_each_format_is_proven(source: Settings, store: ObjectStore, format_: LogicalFormat) -> None:
    manifest = back_up_logical(source, store, format_, SilentReport())
    result = verify_backup(source, store, manifest, SilentReport())
    assert result.verification.reasons == ()
    assert result.verification.outcome == "proven"
    assert result.verification.tables == (0 if format_ == "schema-only" else 4)
    assert result.verification.restore_seconds > 0


def test_a_backup_of_a_release_without_surroundings_is_proven_by_its_scripts(backed_up: BackedUp) -> None:
    objects = tuple(item for item in backed_up.manifest.objects if item.name != SURROUNDINGS_OBJECT)
    old = backed_up.manifest.model_copy(update={"objects": objects})
    assert verify_backup(backed_up.settings, backed_up.store, old, SilentReport()).verification.reasons == ()


def test_the_verdict_is_remembered_in_the_store(backed_up: BackedUp) -> None:
    assert list_backups(backed_up.store)[0].verification is None
    result = verify_backup(backed_up.settings, backed_up.store, backed_up.manifest, SilentReport())
    assert list_backups(backed_up.store)[0].verification == result.verification


def test_a_flipped_byte_in_the_object_is_caught(backed_up: BackedUp) -> None:
    key = key_ending(backed_up.settings.store, DUMP)
    content = bytearray(read_raw(backed_up.settings.store, key))
    content[len(content) // 2] ^= 1
    write_raw(backed_up.settings.store, key, bytes(content))
    assert "SHA-256" in _reasons(backed_up)


def test_a_truncated_object_is_caught(backed_up: BackedUp) -> None:
    key = key_ending(backed_up.settings.store, DUMP)
    write_raw(backed_up.settings.store, key, read_raw(backed_up.settings.store, key)[:-100])
    assert DUMP in _reasons(backed_up)


def test_a_missing_object_is_caught(backed_up: BackedUp) -> None:
    delete_raw(backed_up.settings.store, key_ending(backed_up.settings.store, DUMP))
    assert DUMP in _reasons(backed_up)


def test_whatever_differs_in_the_restored_copy_is_caught(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "UPDATE threat_models SET name = name || '!' WHERE name = 'model 7'": "public.threat_models",
        "DELETE FROM threats WHERE id = 7": "public.threats had 4000 rows, the restored copy has 3999",
        "DROP TRIGGER append_only ON audit": "trigger public.audit append_only is missing",
        "DROP INDEX idx_threats_model": "index public.idx_threats_model is missing",
        "ALTER TABLE threats DROP CONSTRAINT threats_severity_check": "threats was CONSTRAINT threats_severity_check",
        "GRANT SELECT ON audit TO PUBLIC": "grants on table public.audit",
        "ALTER SEQUENCE ticket RESTART; SELECT nextval('ticket')": "sequence public.ticket is at 100",
    }

    def load_and_change(
        address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: SilentReport
    ) -> None:
        load.load_dump(address, fetched, programs, report)
        with connect(address) as connection:
            connection.execute("; ".join(changes).encode())

    monkeypatch.setattr(verify, "load_dump", load_and_change)
    reasons = _reasons(backed_up)
    assert [said for said in changes.values() if said not in reasons] == []


def test_a_dump_that_pg_restore_refuses_fails_the_proof(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage_and_load(
        address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: SilentReport
    ) -> None:
        fetched.dump.write_bytes(fetched.dump.read_bytes()[:5000])
        load.load_dump(address, fetched, programs, report)

    monkeypatch.setattr(verify, "load_dump", damage_and_load)
    assert "pg_restore failed" in _reasons(backed_up)


def test_a_backup_of_a_newer_postgresql_is_refused_before_anything_is_fetched(backed_up: BackedUp) -> None:
    newer = backed_up.manifest.model_copy(update={"server_version": "99.1", "server_version_num": 990001})
    with pytest.raises(ProgramError, match="99") as caught:
        verify_backup(backed_up.settings, backed_up.store, newer, SilentReport())
    assert "TMI_OPS_PG_BINDIR" in caught.value.hint
    assert list_backups(backed_up.store)[0].verification is None


def test_a_machine_without_an_extension_of_the_backup_proves_and_disproves_nothing(
    backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "requirements_of", lambda *_: Requirements(frozenset({"nowhere"})))
    with pytest.raises(NotHereError, match="nowhere") as caught:
        verify_backup(backed_up.settings, backed_up.store, backed_up.manifest, SilentReport())
    assert caught.value.code is Code.NOT_HERE
    assert list_backups(backed_up.store)[0].verification is None


def test_what_the_source_s_role_could_not_back_up_is_told_and_makes_the_verdict_but_for(
    source: Settings, store: ObjectStore
) -> None:
    with connect(source.postgres) as connection:
        connection.execute("CREATE TABLE twice (a int); INSERT INTO twice VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY never_valid ON twice (a)")
    manifest = back_up_logical(source, store, "custom", SilentReport())
    assert manifest.left_behind == ("index public.never_valid is not valid (REINDEX or drop it)",)
    verification = verify_backup(source, store, manifest, SilentReport()).verification
    assert (verification.outcome, verification.but_for) == ("proven", manifest.left_behind)


def test_a_full_disk_is_foreseen(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(Path("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    with pytest.raises(DiskSpaceError, match="of disk space in"):
        verify_backup(backed_up.settings, backed_up.store, backed_up.manifest, SilentReport())
    assert list_backups(backed_up.store)[0].verification is None


def test_nothing_of_the_scratch_area_is_left(backed_up: BackedUp) -> None:
    verify_backup(backed_up.settings, backed_up.store, backed_up.manifest, SilentReport())
    assert list((backed_up.settings.home / "scratch").iterdir()) == []
