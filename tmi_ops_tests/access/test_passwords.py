"""Passwords reach the server as SCRAM verifiers only, and nobody but their owner."""

from __future__ import annotations

import stat

import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.access.passwords import known_passwords
from tmi_ops.access.scram import is_password_of
from tmi_ops.errors import DatabaseError, SettingsError
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops_tests.access.conftest import Site, logged, may, run_on, with_password

FROM_ENVIRONMENT = "corréct horse'; battery \\ staple"


@pytest.mark.slow
def test_neither_password_nor_verifier_comes_into_the_servers_log_or_statistics(
    site: Site, cluster: RunningCluster
) -> None:
    site.variables["TMI_OPS_ROLE_PASSWORD_APP"] = FROM_ENVIRONMENT
    site.sql("CREATE EXTENSION pg_stat_statements")
    site.apply()
    generated = site.as_role(RoleKind.READONLY).password
    assert generated is not None
    verifiers = site.sql("SELECT rolpassword FROM pg_authid WHERE rolname IN ('{app}', '{readonly}')")
    log = logged(cluster)
    assert f"CREATE ROLE {site.name(RoleKind.APP)} LOGIN" in log, "the log holds every statement"
    seen = "\n".join(row[0] for row in site.sql("SELECT query FROM pg_stat_statements"))
    assert "CREATE ROLE" in seen, "the statistics hold every statement"
    for secret in (FROM_ENVIRONMENT, "staple", generated.get_secret_value(), *(row[0] for row in verifiers)):
        assert secret not in log
        assert secret not in seen


def test_a_refused_password_statement_is_not_logged_with_its_verifier(site: Site, cluster: RunningCluster) -> None:
    site.apply()
    before = len(logged(cluster))
    plan = site.plan(reset=frozenset({RoleKind.APP}))
    site.sql("ALTER ROLE {app} RENAME TO gone_for_a_moment")
    with pytest.raises(DatabaseError) as refused:
        site.apply(plan=plan)
    site.sql("ALTER ROLE gone_for_a_moment RENAME TO {app}")
    new = known_passwords({}, site.file).file[RoleKind.APP].get_secret_value()
    for text in (str(refused.value), logged(cluster)[before:]):
        assert "SCRAM-SHA-256$" not in text
        assert new not in text
    assert "does not exist" in str(refused.value)


def test_every_password_is_kept_as_scram_even_where_the_server_would_keep_md5(site: Site) -> None:
    site.sql(f'ALTER DATABASE "{site.admin.database}" SET password_encryption = md5')
    site.apply()
    kinds = site.sql(
        "SELECT DISTINCT left(rolpassword, 14) FROM pg_authid WHERE rolname LIKE 'tmi_%_' || right('{app}', 8)"
    )
    assert kinds == [("SCRAM-SHA-256$",)]


def test_generated_passwords_are_in_a_file_of_their_owner_alone_and_are_all_different(site: Site) -> None:
    site.variables["TMI_OPS_ROLE_PASSWORD_APP"] = FROM_ENVIRONMENT
    site.apply()
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    kept = known_passwords({}, site.file).file
    assert set(kept) == set(RoleKind) - {RoleKind.APP}, "what the environment gave is not written down"
    assert len({password.get_secret_value() for password in kept.values()}) == len(kept)


def test_a_file_that_others_may_read_is_refused(site: Site) -> None:
    site.apply()
    site.file.chmod(0o640)
    with pytest.raises(SettingsError, match="others than its owner can read it"):
        site.plan()


def test_a_plan_shows_where_passwords_come_from_and_none_of_them(site: Site) -> None:
    site.variables["TMI_OPS_ROLE_PASSWORD_APP"] = FROM_ENVIRONMENT
    shown = repr(site.plan()) + repr(known_passwords(site.variables, site.file))
    assert "<SCRAM verifier of TMI_OPS_ROLE_PASSWORD_APP>" in shown
    assert "<SCRAM verifier of a generated password>" in shown
    assert FROM_ENVIRONMENT not in shown


def test_a_reset_gives_a_new_password_and_ends_the_old_one(site: Site) -> None:
    site.apply()
    old = site.as_role(RoleKind.APP).password
    assert old is not None
    site.apply(reset=frozenset({RoleKind.APP}))
    assert may(site.as_role(RoleKind.APP), "SELECT 1")
    with (
        pytest.raises(DatabaseError, match="password authentication failed"),
        connect(with_password(site.as_role(RoleKind.APP), old.get_secret_value())),
    ):
        pass
    assert site.plan().statements == ()


def test_an_md5_password_becomes_scram_once_the_environment_gives_it(site: Site) -> None:
    site.apply()
    site.sql("SET password_encryption = 'md5'; ALTER ROLE {app} PASSWORD 'guessed'")
    site.variables["TMI_OPS_ROLE_PASSWORD_APP"] = "guessed"
    site.apply()
    assert site.sql("SELECT left(rolpassword, 5) FROM pg_authid WHERE rolname = '{app}'") == [("SCRAM",)]
    assert may(site.as_role(RoleKind.APP), "SELECT 1")


@pytest.mark.parametrize("password", ["plain", FROM_ENVIRONMENT, "x\u00adsoft", "\u2168", "\u00a0space"])
def test_a_password_is_recognised_in_the_verifier_that_the_server_made_of_it(site: Site, password: str) -> None:
    role = site.name(RoleKind.APP)
    with connect(site.admin) as connection:
        run_on(connection, f"CREATE ROLE {role} LOGIN")
        literal = password.replace("'", "''").replace("\\", "\\\\")
        run_on(connection, f"ALTER ROLE {role} PASSWORD E'{literal}'")
        ((verifier,),) = run_on(connection, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    assert is_password_of(verifier, password, role)
    assert not is_password_of(verifier, password + "x", role)
    assert not is_password_of(verifier, "", role)
