"""`init` creates the roles of tmi_ops itself, and nothing but them; `uninit` drops what `init` created."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.access.inspection import inspect_access
from tmi_ops.access.passwords import password_file
from tmi_ops.adoption.roles import are_named, create_roles, created_roles, forget_roles, plan_roles
from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings, load_settings


@pytest.fixture
def settings(database: PostgresSettings, tmp_path: Path) -> Settings:
    read = load_settings({"POSTGRES_DB": database.database, "TMI_OPS_HOME": str(tmp_path)})
    return read.model_copy(update={"postgres": database})


@pytest.fixture
def variables(database: PostgresSettings) -> Iterator[Mapping[str, str]]:
    """Names of this test alone: roles belong to the whole server."""
    mark = secrets.token_hex(4)
    names = {f"TMI_OPS_ROLE_NAME_{kind.upper()}": f"{kind}_{mark}" for kind in RoleKind}
    yield names
    with connect(database) as connection:
        for name in names.values():
            connection.execute(f'DROP ROLE IF EXISTS "{name}"')


def test_the_backup_role_as_user_of_the_whole_environment_is_named() -> None:
    with_monitor = {"TMI_OPS_MONITOR_USER": "tmi_monitor"}
    assert are_named({"POSTGRES_USER": "tmi_backup", **with_monitor})
    assert are_named({"POSTGRES_USER": "saver", "TMI_OPS_ROLE_NAME_BACKUP": "saver", **with_monitor})
    assert not are_named({"POSTGRES_USER": "postgres", **with_monitor})
    assert not are_named({"POSTGRES_USER": "tmi_backup"})


def test_only_the_roles_of_tmi_ops_are_created_and_they_log_in(
    settings: Settings, variables: Mapping[str, str]
) -> None:
    written = create_roles(settings, variables, SilentReport())
    assert are_named(written)
    assert not are_named({**written, "TMI_OPS_MONITOR_USER": ""})
    for purpose in ("BACKUP", "MONITOR"):
        login = settings.postgres.model_copy(
            update={"user": written[f"TMI_OPS_{purpose}_USER"], "password": written[f"TMI_OPS_{purpose}_PASSWORD"]}
        )
        with connect(PostgresSettings.model_validate(login.model_dump())) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (variables[f"TMI_OPS_ROLE_NAME_{purpose}"],)
    with connect(settings.postgres) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", (list(variables.values()),)
        ).fetchone() == (2,)
        assert set(created_roles(connection)) == {
            variables["TMI_OPS_ROLE_NAME_BACKUP"],
            variables["TMI_OPS_ROLE_NAME_MONITOR"],
        }


def test_a_run_that_was_interrupted_before_it_wrote_the_passwords_down_goes_on_with_them(
    settings: Settings, variables: Mapping[str, str]
) -> None:
    first = create_roles(settings, variables, SilentReport())
    assert create_roles(settings, variables, SilentReport()) == first
    password_file(settings.home, settings.environment).unlink()
    with pytest.raises(OpsError, match="exists, and its password is not known here"):
        create_roles(settings, variables, SilentReport())


def test_a_login_that_may_not_create_them_and_a_server_that_grants_table_by_table_are_told(
    settings: Settings, variables: Mapping[str, str]
) -> None:
    with connect(settings.postgres) as connection:
        seen = inspect_access(connection, settings, variables)
    assert plan_roles(seen).refused == ""
    assert len(plan_roles(seen).missing) == 2
    old = dataclasses.replace(seen, facts=dataclasses.replace(seen.facts, version_num=130020))
    assert "granted one by one" in plan_roles(old).refused
    somebody = dataclasses.replace(seen, facts=dataclasses.replace(seen.facts, superuser=False, role="somebody"))
    assert plan_roles(somebody).refused.startswith("somebody lacks ")


def test_what_init_created_is_forgotten_with_its_passwords_and_what_a_person_created_stays(
    settings: Settings, variables: Mapping[str, str], tmp_path: Path
) -> None:
    theirs = variables["TMI_OPS_ROLE_NAME_MONITOR"]
    with connect(settings.postgres) as connection:
        connection.execute(f'CREATE ROLE "{theirs}" LOGIN')
    file = tmp_path / ".env.development"
    file.write_text(
        "# ours\nPOSTGRES_DB=x\nTMI_OPS_BACKUP_USER=b\nTMI_OPS_BACKUP_PASSWORD='p w'\nTMI_OPS_MONITOR_USER=m\n"
    )
    forget_roles(file, ["b"])
    assert file.read_text() == "# ours\nPOSTGRES_DB=x\nTMI_OPS_MONITOR_USER=m\n"
    with connect(settings.postgres) as connection:
        assert theirs not in created_roles(connection)
