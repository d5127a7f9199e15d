"""tmi_ops itself works as these roles: it migrates as owner, backs up as backup, examines as monitor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.health.answer import Cause
from tmi_ops.health.examine import Examination, examine
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.schema.validation import validate_schema
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.access.conftest import Site, may, new_site
from tmi_ops_tests.physical import settings_for


@pytest.fixture(scope="module")
def migrated(server: PostgresSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """TMI's own schema, made by the owner after the roles were applied to an empty database."""
    with connect(server) as connection:
        connection.execute("CREATE DATABASE migrated")
    address = server.model_copy(update={"database": "migrated"})
    with new_site(address, tmp_path_factory.mktemp("migrated") / "passwords.env", tables="") as site:
        site.apply()
        migrate(site.as_role(RoleKind.OWNER), SilentReport())
        yield site
    with connect(server) as connection:
        connection.execute("DROP DATABASE migrated WITH (FORCE)")


@pytest.fixture
def at_work(migrated: Site, store_settings: StoreSettings, tmp_path: Path) -> Settings:
    return settings_for(migrated.admin, store_settings, tmp_path / "home")


def as_role(settings: Settings, site: Site, kind: RoleKind) -> Settings:
    return settings.model_copy(update={"postgres": site.as_role(kind)})


def test_the_owner_migrates_and_the_app_uses_every_table_without_another_grant(migrated: Site) -> None:
    assert validate_schema(migrated.as_role(RoleKind.OWNER)).ok
    assert migrated.plan().statements == ()
    app, reader = migrated.as_role(RoleKind.APP), migrated.as_role(RoleKind.READONLY)
    tables = [
        name
        for (name,) in migrated.sql(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    ]
    assert len(tables) > 50
    for statement in ("SELECT FROM {}", "DELETE FROM {} WHERE false", "INSERT INTO {} SELECT * FROM {} WHERE false"):
        everywhere = "; ".join(statement.format(table, table) for table in tables)
        assert may(app, everywhere), statement
    assert may(reader, "; ".join(f"SELECT FROM {table}" for table in tables))


def test_the_backup_role_takes_logical_and_base_backups(migrated: Site, at_work: Settings) -> None:
    settings = as_role(at_work, migrated, RoleKind.BACKUP)
    store = open_store(settings.store, settings.environment)
    logical = back_up_logical(settings, store, "custom", SilentReport())
    assert len(logical.fingerprints) > 50
    base = back_up_base(settings, store, SilentReport())
    assert base.role == migrated.name(RoleKind.BACKUP)
    assert base.format == "full"


@pytest.mark.slow
def test_the_monitor_is_refused_by_no_probe(migrated: Site, at_work: Settings) -> None:
    settings = as_role(at_work, migrated, RoleKind.MONITOR)
    report = examine(settings, Examination(variables={}), SilentReport())
    refused = {one.probe.name: one.answer.seen for one in report.results if one.cause is Cause.RIGHT}
    assert refused == {}
    broken = {one.probe.name: one.answer.seen for one in report.results if one.cause is Cause.REFUSED}
    assert broken == {}
