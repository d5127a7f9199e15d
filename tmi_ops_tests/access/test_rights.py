"""Which rights a plan lacks, from built facts: exact, by version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tmi_ops.access.declared import DeclaredAccess, declared_access
from tmi_ops.access.facts import AccessFacts, ObjectFacts, ObjectKind, PasswordKind, RoleFacts
from tmi_ops.access.planning import plan_access
from tmi_ops.access.rights import A_SUPERUSER, lacking_rights, require_rights
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.rights import Lack


def role(name: str, *attributes: str) -> RoleFacts:
    has = {one: one in attributes for one in ("superuser", "replication", "createrole", "createdb", "bypassrls")}
    return RoleFacts(name, login=True, bootstrap=False, expired=False, password=PasswordKind.SCRAM, **has)


def facts(
    *others: RoleFacts,
    us: RoleFacts,
    major: int = 17,
    member_of: frozenset[str] = frozenset(),
    admin_of: frozenset[str] = frozenset(),
    objects: tuple[ObjectFacts, ...] = (),
) -> AccessFacts:
    return AccessFacts(
        version_num=major * 10000,
        database="tmi",
        role=us.name,
        superuser=us.superuser,
        role_memberships=member_of | {us.name},
        role_admin_of=admin_of,
        ssl=True,
        password_encryption="scram-sha-256",
        roles=(us, *others),
        objects=objects,
        extension_relations=0,
        defaults=(),
        sessions=None,
        hba=None,
    )


def lacks(asked: AccessFacts) -> list[str]:
    declared = declared_access("tmi", asked.major)
    return [lack.right for lack in lacking_rights(asked, declared, plan_access(asked, declared))]


PREDEFINED = frozenset({"pg_monitor", "pg_read_all_data"})
DECLARED = ("tmi_owner", "tmi_app", "tmi_readonly", "tmi_backup", "tmi_monitor")
STANDING = tuple(role(name, *(["replication"] if name == "tmi_backup" else [])) for name in DECLARED)


def test_a_superuser_lacks_nothing() -> None:
    assert lacks(facts(us=role("postgres", "superuser"))) == []


def test_whoever_has_nothing_is_told_all_that_new_roles_need_each_once() -> None:
    asked = facts(us=role("dba"))
    declared = declared_access("tmi", 17)
    assert lacking_rights(asked, declared, plan_access(asked, declared)) == (
        Lack("CREATEROLE", "ALTER ROLE dba CREATEROLE;"),
        Lack("REPLICATION", "ALTER ROLE dba REPLICATION;"),
        Lack("ADMIN OPTION on pg_read_all_data", "GRANT pg_read_all_data TO dba WITH ADMIN OPTION;"),
        Lack("ADMIN OPTION on pg_monitor", "GRANT pg_monitor TO dba WITH ADMIN OPTION;"),
    )


def test_a_managed_server_s_administrator_makes_the_roles_from_16_on() -> None:
    us = role("admin", "createrole", "replication")
    assert lacks(facts(us=us, major=16, admin_of=PREDEFINED)) == []
    assert lacks(facts(us=us, major=16, admin_of=frozenset({"pg_monitor"}))) == ["ADMIN OPTION on pg_read_all_data"]
    assert lacks(facts(us=role("admin", "createrole"), major=16, admin_of=PREDEFINED)) == ["REPLICATION"]


def test_before_16_a_role_that_replicates_is_a_superuser_s_to_make_and_createrole_is_enough_for_members() -> None:
    assert lacks(facts(us=role("admin", "createrole", "replication"), major=15)) == [A_SUPERUSER]


def test_of_roles_that_stand_16_asks_for_the_admin_option_and_15_for_createrole() -> None:
    us = role("admin", "createrole")
    new = plan_access(
        facts(*STANDING, us=us, major=16), declared_access("tmi", 16)
    )  # memberships, settings and ours in the owner are missing
    assert {one.subject for one in new.drifts} >= {"tmi_readonly", "tmi_backup", "tmi_monitor", "admin"}
    assert lacks(facts(*STANDING, us=us, major=16, admin_of=PREDEFINED)) == [
        "ADMIN OPTION on tmi_readonly",
        "ADMIN OPTION on tmi_owner",
        "the rights of tmi_owner",
    ]
    assert lacks(facts(*STANDING, us=us, major=15)) == []
    assert lacks(facts(*STANDING, us=role("dba"), major=15))[0] == "CREATEROLE"


@pytest.mark.parametrize(("major", "right"), [(15, [A_SUPERUSER]), (16, ["REPLICATION"])])
def test_taking_an_attribute_away_needs_what_giving_it_needs(major: int, right: list[str]) -> None:
    too_much = tuple(role(one.name, "replication") if one.name == "tmi_app" else one for one in STANDING)
    asked = facts(
        *too_much,
        us=role("admin", "createrole"),
        major=major,
        member_of=frozenset({"tmi_owner"}),
        admin_of=PREDEFINED | set(DECLARED),
    )
    assert lacks(asked) == right


def test_a_superuser_among_the_declared_roles_is_a_superuser_s_to_change() -> None:
    app = tuple(role(one.name, "superuser") if one.name == "tmi_app" else one for one in STANDING)
    admin = frozenset(DECLARED) | PREDEFINED
    asked = facts(*app, us=role("admin", "createrole"), member_of=frozenset({"tmi_owner"}), admin_of=admin)
    assert lacks(asked) == [A_SUPERUSER]


def thing(kind: ObjectKind, sql: str, owner: str) -> ObjectFacts:
    return ObjectFacts(kind, sql, owner)


def test_a_new_owner_needs_the_rights_of_the_old_one_and_for_the_database_createdb() -> None:
    asked = facts(
        *STANDING,
        role("former"),
        role("postgres", "superuser"),
        us=role("admin", "createrole"),
        member_of=frozenset({"tmi_owner"}),
        admin_of=PREDEFINED | set(DECLARED),
        objects=(
            thing(ObjectKind.DATABASE, "tmi", "former"),
            thing(ObjectKind.TABLE, "public.threats", "postgres"),
        ),
    )
    declared = declared_access("tmi", 17)
    assert lacking_rights(asked, declared, plan_access(asked, declared)) == (
        Lack("the rights of former", "GRANT former TO admin;"),
        Lack("CREATEDB", "ALTER ROLE admin CREATEDB;"),
        Lack("the rights of postgres"),  # a superuser's rights are no statement's to give
    )
    owns = replace(asked, role_memberships=asked.role_memberships | {"former", "postgres"})
    assert lacks(owns) == ["CREATEDB"]


def test_grants_need_the_rights_of_the_owner_or_the_plan_s_own_grant_of_them() -> None:
    us = role("admin", "createrole")
    admin = PREDEFINED | set(DECLARED)
    assert lacks(facts(*STANDING, us=us, admin_of=admin)) == []
    assert lacks(facts(*STANDING, us=us, admin_of=admin - {"tmi_owner"})) == [
        "ADMIN OPTION on tmi_owner",
        "the rights of tmi_owner",
    ]
    assert lacks(facts(*STANDING, us=us, admin_of=admin - {"tmi_owner"}, member_of=frozenset({"tmi_owner"}))) == []


def test_a_role_sets_what_its_own_sessions_begin_with_and_nothing_else_of_itself() -> None:
    us = role("tmi_readonly")
    others = tuple(one for one in STANDING if one.name != "tmi_readonly")
    admin = PREDEFINED | {"tmi_owner"}
    assert lacks(facts(*others, us=us, major=15, admin_of=admin)) == []
    assert lacks(facts(*others, us=role("tmi_readonly", "createdb"), admin_of=admin)) == [
        "CREATEROLE",
        "ADMIN OPTION on tmi_readonly",
    ]


def test_what_is_lacking_is_refused_before_the_first_statement() -> None:
    declared: DeclaredAccess = declared_access("tmi", 17)
    asked = facts(us=role("admin", "createrole", "replication"), admin_of=frozenset({"pg_monitor"}))
    with pytest.raises(DatabaseError) as refused:
        require_rights(asked, declared, plan_access(asked, declared))
    assert refused.value.code is Code.ROLES_RIGHTS
    assert refused.value.message == "admin cannot do this: it lacks ADMIN OPTION on pg_read_all_data."
    assert refused.value.hint == (
        "connect as a superuser, or as the managed server's administrator, or grant the rights: "
        "GRANT pg_read_all_data TO admin WITH ADMIN OPTION;"
    )
    require_rights(replace(asked, superuser=True), declared, plan_access(asked, declared))
