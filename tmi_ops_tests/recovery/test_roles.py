from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from psycopg import sql
from pydantic import ValidationError

from tmi_ops.backup.roles import Membership, Role, Roles, Setting, names_of, read_roles
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.roles import restore_roles, role_statements, without_power
from tmi_ops.settings import PostgresSettings

ROLES = Roles(
    roles=(
        Role(name="postgres", superuser=True, login=True),
        Role(
            name='tmi "app"',
            login=True,
            inherit=False,
            connection_limit=3,
            valid_until="2030-01-01",
            comment="it's",
            settings=(
                Setting(name="search_path", values=("x\nDROP ROLE y", "$user")),
                Setting(name="session_preload_libraries", values=("evil",)),
            ),
        ),
    ),
    memberships=(
        Membership(role="readers", member='tmi "app"', admin=True, inherit=False, set=True),
        Membership(role="pg_execute_server_program", member='tmi "app"'),
        Membership(role="readers", member="postgres"),
    ),
)


def _written(roles: Roles, existing: set[str]) -> list[str]:
    return [item.statement.as_string(None) for item in role_statements(roles, existing)]


def test_each_fact_of_a_missing_role_is_one_statement_and_existing_roles_keep_what_they_are() -> None:
    assert _written(ROLES, {"postgres"}) == [
        'CREATE ROLE "tmi ""app""" WITH NOINHERIT LOGIN CONNECTION LIMIT 3 VALID UNTIL \'2030-01-01\'',
        'COMMENT ON ROLE "tmi ""app""" IS \'it\'\'s\'',
        'ALTER ROLE "tmi ""app""" SET "search_path" TO \'x\nDROP ROLE y\', \'$user\'',
        'GRANT "readers" TO "tmi ""app""" WITH ADMIN TRUE, INHERIT FALSE, SET TRUE',
        'GRANT "pg_execute_server_program" TO "tmi ""app"""',
    ]


def test_without_power_nobody_is_more_than_an_ordinary_user() -> None:
    ordinary = without_power(ROLES)
    assert not any(role.superuser or role.replication or role.bypass_rls for role in ordinary.roles)
    assert [item.role for item in ordinary.memberships] == ["readers", "readers"]


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        ('"$user", public', ["$user", "public"]),
        ('"a ""b"", c",d', ['a "b", c', "d"]),
        ("", [""]),
        ('""', [""]),
    ],
)
def test_a_stored_list_is_taken_apart_as_postgresql_does(stored: str, names: list[str]) -> None:
    assert names_of(stored) == names


@pytest.mark.parametrize(
    "facts",
    [{"name": ""}, {"name": "a\0b"}, {"name": "a", "password": "guess"}, {"name": "a", "connection_limit": -5}],
)
def test_a_role_of_the_store_that_cannot_be_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Role.model_validate(facts)


@pytest.fixture
def victim(server: PostgresSettings) -> Iterator[str]:
    """A role without rights that has done what cases/security/role_setting_to_superuser.sql does."""
    name = f"nobody_{secrets.token_hex(4)}"
    attack = f"hello\nCREATE ROLE evil_{name};\nALTER ROLE evil_{name} SUPERUSER;\nbye"
    with connect(server) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("ALTER ROLE {} SET search_path = {}").format(sql.Identifier(name), sql.Literal(attack))
        )
        yield name
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}, {}").format(*map(sql.Identifier, (name, f"evil_{name}"))))


@pytest.mark.slow
def test_roles_come_back_as_they_were_and_a_setting_stays_a_setting(server: PostgresSettings, victim: str) -> None:
    with connect(server) as connection:
        before = [role for role in read_roles(connection, with_passwords=True).roles if role.name == victim]
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(victim)))
    assert restore_roles(server, Roles(roles=tuple(before)), SilentReport()).created == (victim,)
    with connect(server) as connection:
        after = read_roles(connection, with_passwords=True).roles
    assert [role for role in after if role.name == victim] == before
    assert f"evil_{victim}" not in {role.name for role in after}
