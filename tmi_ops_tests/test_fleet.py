"""`tmi-ops.toml`: what it declares, who is chosen, and what is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.settings import Purpose, environment_name, load_settings
from tmi_ops.settings.fleet import reference_of
from tmi_ops.settings.reading import unused_variables

FLEET = """
[defaults]
TMI_OPS_S3_BUCKET = "backups"
TMI_OPS_S3_SECRET_ACCESS_KEY_FILE = "s3.secret"
TMI_OPS_AGE_RECIPIENTS = ["age1first", "age1second"]

[environments.staging]
POSTGRES_HOST = "staging.example.com"
POSTGRES_PORT = 5433
POSTGRES_PASSWORD_ENV = "STAGING_PASSWORD"

[environments.staging.databases.billing]
TMI_OPS_PROFILE = "none"

[environments.staging.databases.reports]
POSTGRES_DB = "reports-2026"
TMI_OPS_RPO = "8h"

[environments.shop]
POSTGRES_HOST = "shop.example.com"
TMI_OPS_RPO = "1h"
TMI_OPS_RTO = "2h"
TMI_OPS_AUTOMATION = false
"""
PROCESS = {"STAGING_PASSWORD": "of staging"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tmi-ops.toml").write_text(FLEET)
    (tmp_path / "s3.secret").write_text("of the store\n")
    return tmp_path


def refused(here: Path, text: str) -> str:
    (here / "tmi-ops.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, here)
    return f"{caught.value.message} {caught.value.hint}"


def test_an_environment_has_its_own_settings_and_the_defaults(here: Path) -> None:
    settings = load_settings(PROCESS, here, of="staging")
    assert (settings.name, settings.postgres.host, settings.postgres.port) == ("staging", "staging.example.com", 5433)
    assert settings.postgres.password is not None
    assert settings.postgres.password.get_secret_value() == "of staging"
    assert settings.store.secret_access_key is not None
    assert settings.store.secret_access_key.get_secret_value() == "of the store"
    assert settings.store.age_recipients == ("age1first", "age1second")
    assert settings.profile.name == "tmi"


def test_a_database_of_the_cluster_shares_its_place_and_has_its_own_name(here: Path) -> None:
    own, billing, reports = (load_settings(PROCESS, here, of=f"staging{name}") for name in ("", "/billing", "/reports"))
    assert [one.environment for one in (own, billing, reports)] == ["staging"] * 3, "one part of the store"
    assert [one.postgres.database for one in (own, billing, reports)] == ["tmi", "billing", "reports-2026"]
    assert {one.postgres.host for one in (own, billing, reports)} == {"staging.example.com"}
    assert [one.own_folder for one in (own, billing, reports)] == ["", "databases/billing/", "databases/reports/"]
    assert (billing.profile.name, reports.profile.name) == ("none", "tmi")
    assert reports.objectives.rpo > own.objectives.rpo
    assert len({one.home for one in (own, billing, reports)}) == 3, "runs of one are not resumed as another's"


@pytest.mark.parametrize(("name", "kept"), [("RPO", "4 h"), ("RTO", "2 h")])
def test_a_database_promises_nothing_stricter_than_its_cluster_keeps(here: Path, name: str, kept: str) -> None:
    file = here / "tmi-ops.toml"
    file.write_text(FLEET.replace('TMI_OPS_RPO = "8h"', f'TMI_OPS_{name} = "30m"'))
    with pytest.raises(SettingsError) as caught:
        load_settings(PROCESS, here, of="staging/reports")
    assert caught.value.message == (
        f"staging/reports promises an {name} of 30 min, but its cluster staging one of {kept}."
    )
    assert f"TMI_OPS_{name} of staging" in str(caught.value.hint)
    file.write_text(file.read_text().replace("POSTGRES_PORT = 5433", f'TMI_OPS_{name} = "30m"'))
    assert (
        load_settings(PROCESS, here, of="staging/reports").objectives
        == load_settings(PROCESS, here, of="staging").objectives
    )


def test_objectives_of_the_process_are_those_of_the_cluster_and_of_its_databases(here: Path) -> None:
    told = load_settings({**PROCESS, "TMI_OPS_RPO": "5m"}, here, of="staging/billing")
    assert told.objectives.rpo == timedelta(minutes=5)


def test_tmi_env_chooses_as_the_argument_does(here: Path) -> None:
    assert environment_name({"TMI_ENV": "staging/billing"}, here) == "staging/billing"
    assert load_settings({**PROCESS, "TMI_ENV": "staging/billing"}, here).postgres.database == "billing"


def test_without_a_choice_the_names_are_told(here: Path) -> None:
    with pytest.raises(
        SettingsError, match="has 4 environments and databases: staging, staging/billing, staging/reports, shop"
    ) as caught:
        environment_name({}, here)
    assert "-e NAME" in caught.value.hint


def test_the_only_one_needs_no_choice(here: Path) -> None:
    (here / "tmi-ops.toml").write_text('[environments.staging]\nPOSTGRES_HOST = "db"\n')
    assert environment_name({}, here) == "staging"


def test_a_misspelt_choice_is_met_with_the_one_that_was_meant(here: Path) -> None:
    with pytest.raises(SettingsError, match=r"does not have 'staging/biling'\. Did you mean staging/billing\?"):
        environment_name({"TMI_ENV": "staging/biling"}, here)


def test_the_file_is_found_by_its_variable_and_paths_begin_at_it(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    settings = load_settings({**PROCESS, "TMI_OPS_CONFIG": str(here / "tmi-ops.toml")}, elsewhere, of="staging")
    assert settings.home == here / ".tmi-ops" / "staging"
    with pytest.raises(SettingsError, match="TMI_OPS_CONFIG names"):
        load_settings({"TMI_OPS_CONFIG": "absent.toml"}, elsewhere)


def test_a_stray_variable_of_the_process_points_nothing_elsewhere(here: Path) -> None:
    stray = {
        **PROCESS,
        "POSTGRES_HOST": "production.example.com",
        "POSTGRES_PASSWORD": "of production",
        "TMI_OPS_BACKUP_USER": "somebody",
        "TMI_OPS_S3_PREFIX": "elsewhere",
        "TMI_OPS_PG_BINDIR": "/opt/pg/bin",
    }
    settings = load_settings(stray, here, Purpose.BACKUP, "shop")
    assert (settings.postgres.host, settings.postgres.user) == ("shop.example.com", "postgres")
    assert settings.postgres.password is None
    assert settings.store.prefix == "tmi-ops"
    assert settings.pg_bindir == Path("/opt/pg/bin"), "what the file leaves unsaid and reaches nothing"
    said = unused_variables({**stray, "TMI_ENV": "shop"}, here)
    assert said == (
        "POSTGRES_HOST, POSTGRES_PASSWORD, TMI_OPS_BACKUP_USER, TMI_OPS_S3_PREFIX of this process are not used: "
        "tmi-ops.toml has the settings of shop."
    )
    assert unused_variables({**PROCESS, "TMI_ENV": "shop"}, here) == ""
    misspelt = unused_variables({**PROCESS, "TMI_ENV": "shop", "TMI_OPS_S3_BUKET": "b"}, here)
    assert misspelt == "", "another warning says that it is no setting"


def test_an_env_file_adds_to_its_own_environment_alone(here: Path) -> None:
    (here / ".env.staging").write_text("POSTGRES_USER=of_staging\nPOSTGRES_DB=application\n")
    (here / ".env.staging.billing").write_text("POSTGRES_USER=of_billing\n")
    own, billing, reports, shop = (
        load_settings(PROCESS, here, of=name).postgres
        for name in ("staging", "staging/billing", "staging/reports", "shop")
    )
    assert [one.user for one in (own, billing, reports, shop)] == ["of_staging", "of_billing", "of_staging", "postgres"]
    assert (own.database, billing.database) == ("application", "billing"), "its table says what it is called"


def test_no_secret_is_read_to_know_the_name(here: Path) -> None:
    (here / "s3.secret").unlink()
    assert environment_name({"TMI_ENV": "shop"}, here) == "shop"
    with pytest.raises(SettingsError, match=r"s3\.secret, which tmi-ops\.toml names for shop, cannot be read"):
        load_settings({"TMI_ENV": "shop"}, here)


def test_a_variable_that_is_named_must_be_set(here: Path) -> None:
    with pytest.raises(SettingsError, match="The variable STAGING_PASSWORD is not set"):
        load_settings({}, here, of="staging")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('POSTGRES_PASSWORD = "hunter2"', "POSTGRES_PASSWORD"),
        ('TMI_OPS_RUNBOOK_PASSWORD = "hunter2"', "TMI_OPS_RUNBOOK_PASSWORD"),
        ('TMI_OPS_ROLE_PASSWORD_APP = "hunter2"', "TMI_OPS_ROLE_PASSWORD_APP"),
        ('TMI_OPS_ALERT_URLS = ["slack://hunter2"]', "TMI_OPS_ALERT_URLS"),
        ('TMI_DATABASE_URL = "postgresql://me:hunter2@db/tmi"', "TMI_DATABASE_URL"),
        ('TMI_REDIS_URL = "redis://:hunter2@cache"', "TMI_REDIS_URL"),
    ],
)
def test_a_secret_in_the_clear_is_refused_and_not_repeated(here: Path, line: str, name: str) -> None:
    said = refused(here, f"[environments.staging]\n{line}\n")
    assert f"tmi-ops.toml (staging) contains {name} in the clear" in said
    assert f"{name}_FILE" in said
    assert "hunter2" not in said


def test_an_address_without_a_password_may_stand_there(here: Path) -> None:
    (here / "tmi-ops.toml").write_text('[environments.staging]\nTMI_DATABASE_URL = "postgresql://me@db/app"\n')
    assert load_settings({}, here).postgres.describe() == "me@db:5432/app"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[E.s]\nPOSTGRES_HOTS = 'x'", "POSTGRES_HOTS for s, which is not a setting. Did you mean POSTGRES_HOST?"),
        ("[E.s]\nTMI_ENV = 'x'", "TMI_ENV for s, which is not a setting"),
        ("[E.s]\nPOSTGRES_DB = {}", "is not a string, a number, true, false or a list"),
        ("[E.s]\nPOSTGRES_DB = 'a'\nPOSTGRES_DB_FILE = 'b'", "both POSTGRES_DB and POSTGRES_DB_FILE"),
        ("[E.a__b]", "'a__b' in tmi-ops.toml is not a valid name"),
        ("[E.'a/b']", "'a/b' in tmi-ops.toml is not a valid name"),
        ("[E]\ns = 1", "s in tmi-ops.toml is not a table"),
        ("[s]", "s is not allowed in the file tmi-ops.toml"),
        ("", "has no environment"),
        ("[E", "is not valid TOML"),
        ("[E.s.databases.b]\nPOSTGRES_HOST = 'x'", "sets POSTGRES_HOST for s/b, a database in the cluster of s"),
        ("[E.s.databases.b]\nTMI_OPS_S3_BUCKET = 'x'", "sets TMI_OPS_S3_BUCKET for s/b"),
        ("[E.s]\nPOSTGRES_DB = 'b'\n[E.s.databases.b]", "has the database b twice: as s and as s/b"),
        ("[E.s.databases.a]\nPOSTGRES_DB = 'b'\n[E.s.databases.b]", "as s/a and as s/b"),
    ],
)
def test_what_no_such_file_can_say_is_refused_in_a_sentence(here: Path, text: str, said: str) -> None:
    assert re.search(re.escape(said), refused(here, text.replace("[E", "[environments")))


def test_a_file_that_has_changed_is_read_anew(here: Path) -> None:
    assert load_settings(PROCESS, here, of="shop").postgres.host == "shop.example.com"
    (here / "tmi-ops.toml").write_text(FLEET.replace("shop.example.com", "shop-two.example.com"))
    assert load_settings(PROCESS, here, of="shop").postgres.host == "shop-two.example.com"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POSTGRES_PASSWORD_FILE", ("POSTGRES_PASSWORD", "file")),
        ("POSTGRES_PASSWORD_ENV", ("POSTGRES_PASSWORD", "env")),
        ("TMI_OPS_BACKUP_PASSWORD_FILE", ("TMI_OPS_BACKUP_PASSWORD_FILE", None)),
        ("TMI_OPS_AGE_IDENTITY_FILE", ("TMI_OPS_AGE_IDENTITY_FILE", None)),
        ("TMI_OPS_ROLE_PASSWORD_APP_FILE", ("TMI_OPS_ROLE_PASSWORD_APP", "file")),
        ("TMI_OPS_RPO", ("TMI_OPS_RPO", None)),
    ],
)
def test_a_reference_is_told_from_a_setting_that_is_a_file(name: str, meant: tuple[str, str | None]) -> None:
    assert reference_of(name) == meant


def test_without_the_file_variables_alone_are_enough(tmp_path: Path) -> None:
    settings = load_settings({"TMI_ENV": "staging", "POSTGRES_HOST": "db"}, tmp_path)
    assert (settings.name, settings.postgres.host, settings.own_folder) == ("staging", "db", "")
    assert settings.home == tmp_path / ".tmi-ops"
