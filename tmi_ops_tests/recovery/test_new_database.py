"""A copy has the collation, the tablespace and the properties of its source."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.properties import DatabaseGrant, DatabaseProperties, DatabaseSetting
from tmi_ops.backup.roles import Setting
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import found_programs, server_programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.new_database import locale_options
from tmi_ops.recovery.surroundings import differing_properties
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore

SOURCE = DatabaseProperties(
    owner="app",
    encoding="UTF8",
    provider="icu",
    collation="C",
    ctype="C",
    locale="de-u-kn",
    icu_rules="&a < g",
    comment="it's",
    grants=(DatabaseGrant(grantee=None, privilege="CONNECT"),),
    settings=(
        DatabaseSetting(role=None, setting=Setting(name="work_mem", values=("8MB",))),
        DatabaseSetting(role="app", setting=Setting(name="session_preload_libraries", values=("evil",))),
    ),
)


def _options(source: DatabaseProperties, version: int = 170000) -> str:
    return "".join(option.as_string(None) for option in locale_options(source, version))


def test_the_provider_its_locale_and_its_rules_are_asked_for() -> None:
    assert _options(SOURCE) == (
        " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER 'icu' ICU_LOCALE 'de-u-kn' ICU_RULES '&a < g'"
    )
    builtin = SOURCE.model_copy(update={"provider": "builtin", "locale": "C.UTF-8", "icu_rules": None})
    assert _options(builtin).endswith(" LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C.UTF-8'")
    libc = DatabaseProperties(owner="app", collation="C", ctype="C")
    assert _options(libc) == " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER 'libc'"
    assert _options(libc, 140000) == " LC_COLLATE 'C' LC_CTYPE 'C'"


def test_equal_properties_differ_in_nothing_but_what_loads_code() -> None:
    copy = SOURCE.model_copy(update={"settings": SOURCE.settings[:1]})
    assert differing_properties(SOURCE, copy) == (
        "setting session_preload_libraries of app in the database: it loads code, so set it yourself",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"owner": "other"}, "owner of the database was app, here it is other"),
        ({"icu_rules": None}, "icu rules of the database was &a < g, here it is None"),
        ({"provider": "libc"}, "provider of the database was icu, here it is libc"),
        ({"grants": ()}, "privileges on the database differ from the source's"),
        ({"settings": SOURCE.settings[1:]}, "setting work_mem in the database: it is not set here"),
    ],
)
def test_a_property_that_differs_is_named(change: dict[str, object], said: str) -> None:
    assert said in differing_properties(SOURCE, SOURCE.model_copy(update=change))


def test_what_an_older_backup_does_not_know_of_its_source_is_not_held_against_the_copy() -> None:
    assert differing_properties(DatabaseProperties(owner="app"), SOURCE.model_copy(update={"owner": "app"})) == ()


@pytest.mark.slow
def test_tablespace_builtin_locale_and_an_older_extension_are_proven_where_there_is_none(
    settings: Settings, store: ObjectStore, server: PostgresSettings
) -> None:
    name = f"space_{secrets.token_hex(4)}"
    source = settings.model_copy(update={"postgres": server.model_copy(update={"database": name})})
    with connect(server) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {name} LOCATION ''".encode())
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin "
            "BUILTIN_LOCALE 'C.UTF-8'".encode()
        )
        try:
            with connect(source.postgres) as inside:
                inside.execute(
                    "CREATE EXTENSION hstore VERSION '1.4';"
                    f"CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE {name}) TABLESPACE {name}".encode()
                )
            manifest = back_up_logical(source, store, "custom", SilentReport())
        finally:
            connection.execute(f"DROP DATABASE {name}".encode())
            connection.execute(f"DROP TABLESPACE {name}".encode())
    verification = verify_backup(source, store, manifest, SilentReport()).verification
    assert (verification.outcome, verification.reasons) == ("proven", ())
    assert verification.but_for == ("hstore: extension version was 1.4, in the restored copy it is 1.8",)


@pytest.mark.slow
def test_a_database_of_icu_comes_back_with_its_locale(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    if 15 not in {programs.major for programs in found_programs()}:
        pytest.skip("no PostgreSQL 15 with ICU on this machine")
    tmp_path.chmod(0o755)
    with scratch_cluster(server_programs(15), tmp_path / "cluster") as cluster:
        with connect(cluster.address) as connection:
            connection.execute(
                "CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-u-kn-true' "
                "LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        postgres = cluster.address.model_copy(update={"database": "sorted"})
        with connect(postgres) as connection:
            connection.execute("CREATE TABLE t AS SELECT 'a' || i AS a FROM generate_series(1, 12) i")
            connection.execute("CREATE COLLATION ndet (provider=icu, locale='und-u-ks-level2', deterministic=false)")
        source = settings.model_copy(update={"postgres": postgres})
        manifest = back_up_logical(source, store, "custom", SilentReport())
    verification = verify_backup(source, store, manifest, SilentReport()).verification
    assert (verification.outcome, verification.reasons, verification.but_for) == ("proven", (), ())
