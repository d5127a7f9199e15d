"""The scripts of older backups are data: only roles and properties are parsed, whatever the values look like."""

from __future__ import annotations

import pytest

from tmi_ops.backup.properties import DatabaseGrant
from tmi_ops.backup.roles import Membership, ParameterGrant, Role, Setting
from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.surroundings import parse_properties, parse_roles

GLOBALS = """
--
-- PostgreSQL database cluster dump
--

\\restrict W8Ob0a1

SET default_transaction_read_only = off;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;
CREATE ROLE "tmi app";
ALTER ROLE "tmi app" WITH NOSUPERUSER LOGIN CONNECTION LIMIT 5 PASSWORD 'md50123456789abcdef0123456789abcdef';
ALTER ROLE "tmi app" SET statement_timeout TO '5s';
ALTER ROLE "tmi app" SET search_path TO 'a', '$user';
COMMENT ON ROLE "tmi app" IS 'it''s';
GRANT readers TO "tmi app" WITH ADMIN OPTION, INHERIT TRUE GRANTED BY postgres;
GRANT SET ON PARAMETER work_mem TO "tmi app";
\\unrestrict W8Ob0a1
"""
# As pg_dumpall writes what cases/security/role_setting_to_superuser.sql sets.
HOSTILE = """CREATE ROLE nobody_special;
ALTER ROLE nobody_special WITH NOSUPERUSER;
ALTER ROLE nobody_special SET search_path TO 'hello
CREATE ROLE evil2;
ALTER ROLE evil2 SUPERUSER LOGIN PASSWORD $x$evil$x$; GRANT evil2 TO nobody_special;
bye';
"""


def test_roles_memberships_and_settings_are_read_from_a_role_dump() -> None:
    left_out: list[str] = []
    found = parse_roles(GLOBALS, left_out.append)
    assert found.roles == (
        Role(
            name="postgres",
            superuser=True,
            create_role=True,
            create_db=True,
            login=True,
            replication=True,
            bypass_rls=True,
        ),
        Role(
            name="tmi app",
            login=True,
            connection_limit=5,
            password="md50123456789abcdef0123456789abcdef",
            settings=(
                Setting(name="statement_timeout", values=("5s",)),
                Setting(name="search_path", values=("a", "$user")),
            ),
            comment="it's",
        ),
    )
    assert found.memberships == (Membership(role="readers", member="tmi app", admin=True, inherit=True),)
    assert found.parameter_grants == (ParameterGrant(parameter="work_mem", grantee="tmi app", privilege="SET"),)
    assert left_out == []


def test_a_setting_with_line_breaks_is_one_value_and_makes_nobody_a_superuser() -> None:
    found = parse_roles(HOSTILE, lambda _: None)
    assert [role.name for role in found.roles] == ["nobody_special"]
    assert not found.roles[0].superuser
    assert "CREATE ROLE evil2" in found.roles[0].settings[0].values[0]
    assert found.memberships == ()


@pytest.mark.parametrize(
    "statement",
    [
        "COPY t FROM PROGRAM 'id'",
        "DO $$ BEGIN END $$",
        "ALTER SYSTEM SET archive_command = 'id'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'system'",
        "SELECT pg_read_file('/etc/passwd')",
        "DROP ROLE postgres",
    ],
)
def test_statements_of_any_other_kind_are_left_out_and_named(statement: str) -> None:
    left_out: list[str] = []
    found = parse_roles(f"CREATE ROLE a;\n{statement};\n", left_out.append)
    assert [role.name for role in found.roles] == ["a"]
    assert len(left_out) == 1


def test_a_password_in_the_clear_is_no_verifier() -> None:
    left_out: list[str] = []
    assert parse_roles("CREATE ROLE a; ALTER ROLE a PASSWORD 'guess';", left_out.append).roles == ()
    assert len(left_out) == 1


def test_what_is_no_sql_is_refused_with_the_next_step() -> None:
    with pytest.raises(RecoveryError, match=r"globals\.sql cannot be parsed") as caught:
        parse_roles("\\! touch /tmp/pwned\n", lambda _: None)
    assert "another backup" in caught.value.hint


def test_the_properties_of_an_older_backup_are_read() -> None:
    script = """ALTER DATABASE :"db" OWNER TO "Odd Owner";
ALTER DATABASE :"db" CONNECTION LIMIT 7;
COMMENT ON DATABASE :"db" IS ':"db" is''s';
REVOKE ALL ON DATABASE :"db" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"db" TO PUBLIC;
GRANT CREATE ON DATABASE :"db" TO "x" WITH GRANT OPTION;
ALTER DATABASE :"db" SET "search_path" TO "Weird Schema", public;
ALTER ROLE "app" IN DATABASE :"db" SET "my"."custom" TO 'a
b';
"""
    found = parse_properties(script, pytest.fail)
    assert (found.owner, found.connection_limit, found.comment) == ("Odd Owner", 7, ':"db" is\'s')
    assert found.grants == (
        DatabaseGrant(grantee=None, privilege="CONNECT"),
        DatabaseGrant(grantee="x", privilege="CREATE", grantable=True),
    )
    assert [(item.role, item.setting) for item in found.settings] == [
        (None, Setting(name="search_path", values=("Weird Schema", "public"))),
        ("app", Setting(name="my.custom", values=("a\nb",))),
    ]
