"""A managed server's administrator is no superuser: CREATEROLE and the database must be enough."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from tmi_ops.access.declared import RoleKind
from tmi_ops.access.inspection import read_access
from tmi_ops.access.rights import A_SUPERUSER, lacking_rights
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.rights import Lack
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.access.conftest import Site, may, run_on

GRANTORS_SINCE = 16


@pytest.fixture
def administrator(site: Site) -> Iterator[PostgresSettings]:
    """Owns the database and may create roles, as the first role of a managed server does."""
    name, password = f"admin_{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    with connect(site.admin) as connection:
        major = connection.info.server_version // 10000
        admin_option = "WITH ADMIN OPTION" if major >= GRANTORS_SINCE else ""
        run_on(
            connection,
            f"CREATE ROLE {name} LOGIN CREATEROLE CREATEDB REPLICATION PASSWORD '{password}'",
            f"GRANT pg_monitor TO {name} {admin_option}",
            *([f"GRANT pg_read_all_data TO {name} {admin_option}"] if major > 13 else []),
            f'ALTER DATABASE "{site.admin.database}" OWNER TO {name}',
            f"ALTER SCHEMA public OWNER TO {name}",
        )
        for thing in ("TABLE threats", "VIEW spoofing", "TYPE severity", "FUNCTION append_only()"):
            run_on(connection, f"ALTER {thing} OWNER TO {name}")
    yield site.admin.model_copy(update={"user": name, "password": SecretStr(password)})
    with connect(site.admin) as connection:
        run_on(connection, f"REASSIGN OWNED BY {name} TO CURRENT_USER")


def lacking(site: Site, postgres: PostgresSettings) -> tuple[Lack, ...]:
    """What the plan of this role says that it lacks."""
    with connect(postgres) as connection:
        facts = read_access(connection)
    return lacking_rights(facts, site.declared(), site.plan(postgres=postgres))


def test_an_administrator_who_is_no_superuser_sets_up_every_role(site: Site, administrator: PostgresSettings) -> None:
    major = site.major()
    if major < GRANTORS_SINCE:
        # Before 16 only a superuser makes roles that replicate; it says so, and nothing is half done.
        assert [lack.right for lack in lacking(site, administrator)] == [A_SUPERUSER]
        with pytest.raises(DatabaseError, match="superuser"):
            site.apply(postgres=administrator)
        assert site.sql("SELECT FROM pg_roles WHERE rolname = '{app}'") == []
        return
    assert lacking(site, administrator) == ()
    site.apply(postgres=administrator)
    assert site.plan(postgres=administrator).statements == ()
    assert may(site.as_role(RoleKind.APP), "INSERT INTO threats (name) VALUES ('x')")
    assert may(site.as_role(RoleKind.OWNER), "ALTER TABLE threats ADD COLUMN more text")
    assert may(site.as_role(RoleKind.MONITOR), "SELECT * FROM pg_ls_waldir()")


def test_a_role_without_the_right_is_refused_with_nothing_half_done(site: Site) -> None:
    site.apply()
    site.sql("DROP OWNED BY {monitor}", "DROP ROLE {monitor}")
    assert lacking(site, site.as_role(RoleKind.APP))[0].right == "CREATEROLE"
    with pytest.raises(DatabaseError, match="CREATE ROLE") as refused:
        site.apply(postgres=site.as_role(RoleKind.APP))
    assert "as a superuser" in refused.value.hint
    assert site.sql("SELECT FROM pg_roles WHERE rolname = '{monitor}'") == []
