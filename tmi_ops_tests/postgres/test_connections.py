from __future__ import annotations

import time

import pytest
from pydantic import SecretStr

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.settings import PostgresSettings


def test_a_wrong_password_says_which_settings_to_check(server: PostgresSettings) -> None:
    wrong = server.model_copy(update={"password": SecretStr("hunter2")})
    with pytest.raises(DatabaseError, match="password authentication failed") as caught, connect(wrong):
        pass
    assert "POSTGRES_PASSWORD" in caught.value.hint
    assert "hunter2" not in str(caught.value)
    assert not caught.value.transient


def test_a_server_that_is_not_there_is_worth_trying_again(server: PostgresSettings) -> None:
    nobody = server.model_copy(update={"port": free_port()})
    with pytest.raises(DatabaseError, match="could not be reached") as caught, connect(nobody):
        pass
    assert caught.value.transient
    assert caught.value.message.endswith(f":{nobody.port}/{nobody.database}: Connection refused.")


def test_a_host_that_does_not_exist_is_named(server: PostgresSettings) -> None:
    nowhere = server.model_copy(update={"host": "nowhere.invalid"})
    with pytest.raises(DatabaseError, match=r"nowhere\.invalid"), connect(nowhere):
        pass


def test_a_missing_database_says_how_to_make_it(server: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match="no_such_database") as caught, connect(server, "no_such_database"):
        pass
    assert "tmi-ops migrate" in caught.value.hint


def test_a_statement_that_fails_is_explained_with_its_sqlstate(server: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match=r"division by zero \(SQLSTATE 22012\)"), connect(server) as connection:
        connection.execute("SELECT 1/0")


def test_a_connection_that_is_cut_is_worth_trying_again(server: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match="was lost") as caught, connect(server) as connection:
        with connect(server) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        time.sleep(0.1)
        connection.execute("SELECT 1")
    assert caught.value.transient


def test_programs_are_given_the_password_by_the_environment_alone() -> None:
    postgres = PostgresSettings(password=SecretStr("hunter2"), sslmode="verify-full", sslrootcert="/ca.pem")
    environment = libpq_environment(postgres, "other")
    assert environment["PGPASSWORD"] == "hunter2"
    assert environment["PGDATABASE"] == "other"
    assert (environment["PGSSLMODE"], environment["PGSSLROOTCERT"]) == ("verify-full", "/ca.pem")
