from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.replication import ReplicationError
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.physical import (
    make_noise_table,
    nothing_is_left,
    physical_cluster,
    reload_configuration,
    settings_for,
)

pytestmark = pytest.mark.slow


def test_pages_that_fail_their_checksum_fail_the_backup_and_are_named(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path) as damaged:
        settings = settings_for(damaged.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        make_noise_table(settings.postgres, "torn", rows=1000)
        with connect(settings.postgres) as connection:
            connection.execute("CHECKPOINT")
            row = connection.execute("SELECT pg_relation_filepath('torn')").fetchone()
            assert row is not None
            relation = damaged.directory / row[0]
        with relation.open("r+b") as file:
            file.seek(3 * 8192 + 4000)
            file.write(b"\xff\x00\xff\x00")
        with pytest.raises(ReplicationError, match=r"damaged pages.*block 3") as caught:
            back_up_base(settings, store, SilentReport())
        assert relation.name in caught.value.message
        assert "do not let them expire" in caught.value.hint
        assert nothing_is_left(settings)


def test_a_role_without_replication_is_told_the_statement_that_grants_it(source: Settings, store: ObjectStore) -> None:
    with connect(source.postgres) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    plain = source.postgres.model_copy(update={"user": "plain", "password": SecretStr("plain")})
    with pytest.raises(DatabaseError) as caught:
        back_up_base(source.model_copy(update={"postgres": plain}), store, SilentReport())
    assert 'ALTER ROLE "plain" REPLICATION;' in caught.value.hint
    assert nothing_is_left(source)


def test_a_role_with_nothing_but_replication_can_take_a_backup(source: Settings, store: ObjectStore) -> None:
    with connect(source.postgres) as connection:
        connection.execute("DROP ROLE IF EXISTS backup_only")
        connection.execute("CREATE ROLE backup_only LOGIN REPLICATION PASSWORD 'backup'")
    role = source.postgres.model_copy(
        update={"user": "backup_only", "password": SecretStr("backup"), "database": "no_such_database"}
    )
    manifest = back_up_base(source.model_copy(update={"postgres": role}), store, SilentReport())
    assert (manifest.role, manifest.superuser) == ("backup_only", None)


def test_a_server_without_a_replication_line_is_told_the_exact_line(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path) as closed:
        settings = settings_for(closed.address, store_settings, tmp_path / "home")
        hba = closed.directory / "pg_hba.conf"
        lines = [line for line in hba.read_text().splitlines() if "replication" not in line]
        hba.write_text("\n".join(lines) + "\n")
        reload_configuration(settings.postgres)
        store = open_store(settings.store, settings.environment)
        with pytest.raises(DatabaseError) as caught:
            back_up_base(settings, store, SilentReport())
        expected = f"host replication {settings.postgres.user} 127.0.0.1/32 scram-sha-256"
        assert expected in " ".join(caught.value.hint.split())
        with hba.open("a") as file:
            file.write(f"{expected}\n")
        reload_configuration(settings.postgres)
        assert back_up_base(settings, store, SilentReport()).format == "full"


@pytest.mark.parametrize("parameters", [{"max_wal_senders": "0"}, {"max_wal_senders": "0", "wal_level": "minimal"}])
def test_a_server_that_cannot_replicate_is_told_what_to_set(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path, parameters: dict[str, str]
) -> None:
    with physical_cluster(programs, tmp_path, parameters) as closed:
        settings = settings_for(closed.address, store_settings, tmp_path / "home")
        with pytest.raises(DatabaseError) as caught:
            back_up_base(settings, open_store(settings.store, settings.environment), SilentReport())
    assert "ALTER SYSTEM SET wal_level = 'replica'" in caught.value.hint
    assert "ALTER SYSTEM SET max_wal_senders" in caught.value.hint
