"""Set-ups in which the server is reached and does not let us in, or not far enough."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.postgres.connections import connect
from tmi_ops_tests.diagnosis.asserting import assert_cause, statements_of
from tmi_ops_tests.diagnosis.conftest import Examine, login
from tmi_ops_tests.house import READ_ALL_DATA_SINCE, House

REPLICATES = ("REPLICATION", "IN ROLE pg_monitor")


def test_a_wrong_password_is_named_beside_what_else_the_server_may_mean(examine: Examine) -> None:
    diagnosis = examine(POSTGRES_PASSWORD="wrong")
    assert_cause(
        diagnosis, "authentication", 'password authentication failed for user "postgres"', "set POSTGRES_PASSWORD"
    )
    assert diagnosis.result("pg-hba").outcome is Outcome.OK
    assert diagnosis.result("wal-level").because == "authentication"


def test_an_expired_password_is_mended_by_the_statement_that_is_named(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES, "VALID UNTIL '2001-01-01'", reads=True) as role:
        fix = assert_cause(examine(login(role)), "authentication", "expired")
        server_house.run(*statements_of(fix))
        assert examine(login(role)).root_cause is None


def test_a_role_that_does_not_exist_is_made_by_tmi_ops_roles(examine: Examine) -> None:
    diagnosis = examine(POSTGRES_USER="tmi_backup", POSTGRES_PASSWORD="any")
    assert_cause(diagnosis, "authentication", "the role does not exist", "tmi-ops roles apply")


def test_a_role_without_a_line_of_its_password_is_named(examine: Examine) -> None:
    assert_cause(examine(POSTGRES_PASSWORD=None), "authentication", "none is set", "set POSTGRES_PASSWORD")


def test_a_role_that_may_not_log_in_gets_login(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES, reads=True) as role:
        server_house.run(f"ALTER ROLE {role.user} NOLOGIN")
        fix = assert_cause(examine(login(role)), "authentication", "NOLOGIN")
        server_house.run(*statements_of(fix))
        assert examine(login(role)).root_cause is None


def test_a_connection_that_pg_hba_rejects_is_let_in_by_the_line_that_is_named(
    examine: Examine, server_house: House
) -> None:
    with server_house.role(*REPLICATES, reads=True) as role, server_house.hba(f"host tmi {role.user} all reject"):
        diagnosis = examine(login(role))
        fix = assert_cause(diagnosis, "pg-hba", "method reject", "SELECT pg_reload_conf();")
        line = f"host  tmi  {role.user}  127.0.0.1/32  scram-sha-256"
        assert line in fix
        assert diagnosis.result("accepting").outcome is Outcome.OK
        with server_house.hba(line):
            assert examine(login(role)).root_cause is None


def test_a_connection_that_no_line_of_pg_hba_fits_is_let_in_by_the_line_that_is_named(
    examine: Examine, server_house: House
) -> None:
    file = server_house.data / "pg_hba.conf"
    before = file.read_text()
    with server_house.role(*REPLICATES, reads=True) as role:
        try:
            file.write_text("host postgres all all scram-sha-256\nhost replication all all scram-sha-256\n")
            with server_house.hba():
                fix = assert_cause(examine(login(role)), "pg-hba", "no line of pg_hba.conf matches")
            line = next(line for line in fix if line.startswith("host"))
            with server_house.hba(line):
                assert examine(login(role)).root_cause is None
        finally:
            file.write_text(before)
            with server_house.hba():
                pass


def test_a_missing_database_is_named_and_the_server_still_examined(examine: Examine, server_house: House) -> None:
    diagnosis = examine(POSTGRES_DB="tmi_prod")
    fix = assert_cause(diagnosis, "database", 'database "tmi_prod" does not exist', "tmi-ops migrate")
    assert diagnosis.result("wal-level").outcome is Outcome.OK
    assert diagnosis.result("tables").outcome is Outcome.SKIPPED
    server_house.run(*statements_of(fix))
    try:
        mended = examine(POSTGRES_DB="tmi_prod")
        assert mended.result("database").outcome is Outcome.OK
        # The next link in the chain is named now: the new database is empty.
        fix = assert_cause(mended, "tables", "52 of 52", "has never run in this database", outcome=Outcome.WARNING)
        assert "tmi-ops migrate" in fix
    finally:
        server_house.run('DROP DATABASE "tmi_prod" WITH (FORCE)')


def test_a_revoked_connect_is_granted_by_the_statement_that_is_named(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES, reads=True) as role:
        server_house.run("REVOKE CONNECT ON DATABASE tmi FROM PUBLIC")
        try:
            fix = assert_cause(examine(login(role)), "database", "lacks CONNECT on tmi")
            server_house.run(*statements_of(fix))
            assert examine(login(role)).root_cause is None
        finally:
            server_house.run("GRANT CONNECT ON DATABASE tmi TO PUBLIC")


def test_a_role_at_its_connection_limit_is_given_more(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES, "CONNECTION LIMIT 0", reads=True) as role:
        fix = assert_cause(examine(login(role)), "accepting", "CONNECTION LIMIT")
        server_house.run(*statements_of(fix))
        assert examine(login(role)).root_cause is None


def test_a_role_that_may_not_read_every_table_is_granted_just_that(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES) as role:
        of_all = server_house.programs.major >= READ_ALL_DATA_SINCE
        grant = "pg_read_all_data" if of_all else 'SELECT ON ALL TABLES IN SCHEMA "public"'
        fix = assert_cause(examine(login(role)), "rights", "may not read", f'GRANT {grant} TO "{role.user}";')
        server_house.run(*statements_of(fix), database="tmi")
        assert examine(login(role)).root_cause is None


def test_a_role_that_sees_no_statistics_is_a_warning_with_its_grant(examine: Examine, server_house: House) -> None:
    with server_house.role("REPLICATION", reads=True) as role:
        fix = assert_cause(examine(login(role)), "statistics", "not a member of pg_monitor", outcome=Outcome.WARNING)
        server_house.run(*statements_of(fix))
        assert examine(login(role)).root_cause is None


@pytest.mark.parametrize(
    ("held", "outcome"), [(24, Outcome.WARNING), (26, Outcome.CRITICAL)], ids=["nearly", "as good as"]
)
def test_connections_that_are_nearly_used_up_are_named(
    examine: Examine, server_house: House, held: int, outcome: Outcome
) -> None:
    with ExitStack() as connections:
        for _ in range(held - 1):  # the doctor's own makes one more; 27 of 30 are for everybody
            connections.enter_context(connect(server_house.address))
        fix = assert_cause(examine(), "connections", "of 27 in use", "reduce the pools", outcome=outcome)
    assert "ALTER SYSTEM SET max_connections = 60;" in fix


def test_a_server_that_is_full_is_told_from_one_that_refuses_us(examine: Examine, server_house: House) -> None:
    with server_house.role(*REPLICATES, reads=True) as role, ExitStack() as connections:
        for _ in range(27):
            connections.enter_context(connect(server_house.address))
        diagnosis = examine(login(role))
        assert_cause(
            diagnosis,
            "accepting",
            "all connections of max_connections are in use",
            "pg_terminate_backend",
            "max_connections = ",
        )
        assert diagnosis.result("authentication").outcome is Outcome.SKIPPED


def test_statistics_of_statements_are_offered_where_the_extension_is_not_made(
    examine: Examine, server_house: House
) -> None:
    server_house.run("DROP EXTENSION pg_stat_statements", database="tmi")
    fix = assert_cause(examine(), "extensions", "does not exist in tmi", outcome=Outcome.WARNING)
    server_house.run(*statements_of(fix), database="tmi")
    assert examine().root_cause is None
