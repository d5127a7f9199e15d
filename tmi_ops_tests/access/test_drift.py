"""Whatever is changed by hand is found, named and, where that is ours to do, put right."""

from __future__ import annotations

import psycopg
import pytest
from pydantic import SecretStr

from tmi_ops.access.declared import NAME_VARIABLE, RoleKind, declared_access
from tmi_ops.access.drift import drifted
from tmi_ops.access.findings import Drift
from tmi_ops.checks.finding import Severity
from tmi_ops.errors import DatabaseError, SettingsError
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops_tests.access.conftest import Site, may, run_on

# What is done by hand; words of the finding; how bad it is.
BY_HAND = {
    "app may truncate": ("GRANT TRUNCATE ON threats TO {app}", "has TRUNCATE on public.threats", "critical"),
    "app may hand on": (
        "GRANT SELECT ON threats TO {app} WITH GRANT OPTION",
        "can grant SELECT on public.threats",
        "critical",
    ),
    "monitor reads a column": ("GRANT SELECT (name) ON threats TO {monitor}", "has SELECT (name)", "critical"),
    "reader writes": ("GRANT INSERT ON spoofing TO {readonly}", "has INSERT on public.spoofing", "critical"),
    "sequence": ("GRANT UPDATE ON threats_id_seq TO {app}", "has UPDATE on public.threats_id_seq", "critical"),
    "superuser app": ("ALTER ROLE {app} SUPERUSER CREATEDB", "has SUPERUSER, CREATEDB", "critical"),
    "app replicates": ("ALTER ROLE {app} REPLICATION", "has REPLICATION", "critical"),
    "member of owner": ("GRANT {owner} TO {app}", "is a member of ", "critical"),
    "everybody creates": ("GRANT CREATE ON SCHEMA public TO PUBLIC", "has CREATE on public", "critical"),
    "everybody reads": ("GRANT SELECT ON threats TO PUBLIC", "has SELECT on public.threats", "critical"),
    "app creates": ("GRANT CREATE ON SCHEMA public TO {app}", "has CREATE on public", "critical"),
    "later tables": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT TRUNCATE ON TABLES TO {app}",
        "will have TRUNCATE on every table",
        "critical",
    ),
    "app owns": ("ALTER TABLE threats OWNER TO {app}", "may alter and drop it", "critical"),
    "superuser owns": ("ALTER TYPE severity OWNER TO CURRENT_USER", "not to ", "warning"),
    "backup cannot": ("ALTER ROLE {backup} NOREPLICATION", "lacks REPLICATION", "warning"),
    "cannot log in": ("ALTER ROLE {app} NOLOGIN", "lacks LOGIN", "warning"),
    "monitor is blind": ("REVOKE pg_monitor FROM {monitor}", "is not a member of pg_monitor", "warning"),
    "app cannot read": ("REVOKE SELECT ON threats FROM {app}", "lacks SELECT on public.threats", "warning"),
    "no sequence": ("REVOKE USAGE ON threats_id_seq FROM {app}", "lacks USAGE on public.threats_id_seq", "warning"),
    "no defaults": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public REVOKE INSERT ON TABLES FROM {app}",
        "will lack INSERT on tables",
        "warning",
    ),
    "reader forgets": ("ALTER ROLE {readonly} RESET ALL", "default_transaction_read_only", "warning"),
    "no password": ("ALTER ROLE {app} PASSWORD NULL", "has no password", "warning"),
    "new table of another": ("CREATE TABLE stray (id int)", "not to ", "warning"),
}
# What nobody but a person can put right.
LEFT_TO_A_PERSON = {
    "expired": ("ALTER ROLE {app} VALID UNTIL '2001-01-01'", "its password has expired"),
    "md5": ("SET password_encryption = 'md5'; ALTER ROLE {app} PASSWORD 'guessed'", "stored as md5"),
}


def saying(findings: tuple[Drift, ...], words: str) -> Drift:
    matching = [one for one in findings if words in one.what]
    assert len(matching) == 1, [one.what for one in findings]
    return matching[0]


@pytest.fixture
def applied(site: Site) -> Site:
    site.apply()
    assert not drifted(site.check()), site.check()
    return site


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_what_was_changed_by_hand_is_found_and_put_right(standing: Site, name: str) -> None:
    by_hand, words, severity = BY_HAND[name]
    assert not drifted(standing.check())
    standing.sql(by_hand)
    found = saying(standing.check(), words)
    assert found.severity == severity
    assert found.statements
    standing.apply()
    assert standing.plan().statements == ()
    assert not drifted(standing.check())


def test_what_only_a_person_can_decide_is_found_with_advice_and_left_alone(applied: Site) -> None:
    applied.file.unlink()
    for name, (by_hand, words) in LEFT_TO_A_PERSON.items():
        applied.sql(by_hand)
        found = saying(applied.check(), words)
        assert (found.statements, found.by_hand != ()) == ((), True), name
    assert applied.plan().statements == ()


def test_an_application_that_connects_as_a_superuser_is_found_and_a_person_at_psql_is_only_noted(applied: Site) -> None:
    for application, severity in (("tmi-server", Severity.CRITICAL), ("psql", Severity.NOTICE)):
        parameters = {**connection_parameters(applied.admin), "application_name": application}
        with psycopg.connect(**parameters):
            assert saying(applied.check(), f"is a superuser, and {application}").severity == severity


def test_a_role_nobody_declared_is_reported_and_never_touched(applied: Site) -> None:
    stranger = applied.name(RoleKind.APP) + "_2"
    applied.sql(f"CREATE ROLE {stranger}", f"GRANT SELECT, DELETE ON threats TO {stranger}")
    found = saying(applied.check(), "is not declared and has DELETE, SELECT on 1 table")
    assert (found.subject, found.severity) == (stranger, Severity.WARNING)
    assert applied.plan().statements == ()
    applied.sql(f"DROP OWNED BY {stranger}", f"DROP ROLE {stranger}")


def test_an_owner_that_logs_in_is_not_robbed_of_its_tables_without_a_word(site: Site) -> None:
    old = site.name(RoleKind.APP) + "_old"
    site.sql(f"CREATE ROLE {old} LOGIN", f"ALTER TABLE threats OWNER TO {old}")
    found = saying(site.check(), f"belongs to {old}")
    assert f"TMI_OPS_ROLE_NAME_OWNER={old}" in found.by_hand[0]
    site.apply()
    site.sql(f"DROP ROLE {old}")


def test_a_role_that_may_see_little_says_what_nobody_looked_at(applied: Site) -> None:
    said = {one.subject: one for one in applied.check(applied.as_role(RoleKind.MONITOR))}
    assert "may not read pg_hba_file_rules" in said["pg_hba.conf"].what
    assert "only a superuser can read" in said["passwords"].what
    assert not drifted(tuple(one for one in said.values() if one.subject in ("pg_hba.conf", "passwords")))


@pytest.mark.slow
def test_a_plan_that_fails_halfway_changes_nothing_and_keeps_the_password_it_made(site: Site) -> None:
    with connect(site.admin) as reader, reader.transaction():
        run_on(reader, "LOCK TABLE threats IN ACCESS SHARE MODE")
        with pytest.raises(DatabaseError, match="Another session holds a lock") as refused:
            site.apply()
    assert refused.value.transient
    assert site.sql("SELECT FROM pg_roles WHERE rolname = '{app}'") == []
    kept = site.file.read_text()
    site.apply()
    assert site.file.read_text() == kept
    assert may(site.as_role(RoleKind.APP), "SELECT * FROM threats")


def test_the_first_superuser_is_refused_as_a_declared_role(site: Site) -> None:
    site.variables[f"{NAME_VARIABLE}OWNER"] = site.admin.user
    with pytest.raises(SettingsError, match="bootstrap superuser"):
        site.plan()


@pytest.mark.parametrize("name", ["pg_mine", "public", "two words", 'quo"te', "x" * 64, ""])
def test_a_name_that_is_none_is_refused_with_the_variable_named(name: str) -> None:
    variables = {f"{NAME_VARIABLE}APP": name}
    if not name:
        assert declared_access("tmi", 17, variables).of(RoleKind.APP).name == "tmi_app"
        return
    with pytest.raises(SettingsError, match="TMI_OPS_ROLE_NAME_APP"):
        declared_access("tmi", 17, variables)


def test_two_roles_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="the same name: tmi_backup"):
        declared_access("tmi", 17, {f"{NAME_VARIABLE}READONLY": "tmi_backup"})


def test_the_password_of_a_dropped_variable_stays_as_it_is(applied: Site) -> None:
    applied.variables["TMI_OPS_ROLE_PASSWORD_APP"] = "of the environment"
    saying(applied.check(), "is not that in TMI_OPS_ROLE_PASSWORD_APP")
    applied.apply()
    reached = applied.as_role(RoleKind.APP)
    assert reached.password == SecretStr("of the environment")
    assert may(reached, "SELECT * FROM threats")
    del applied.variables["TMI_OPS_ROLE_PASSWORD_APP"]
    assert applied.plan().statements == ()
