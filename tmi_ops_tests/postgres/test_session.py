from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from tmi_ops.postgres.connections import connect, libpq_environment, open_session
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.session import startup_options
from tmi_ops.settings import PostgresSettings

HOSTILE = {
    "statement_timeout": "100ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "100ms",
    "client_encoding": "LATIN1",
    "search_path": "evil, pg_catalog",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Tokyo",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
    "row_security": "on",
    "xmloption": "document",
    "quote_all_identifiers": "on",
    "session_replication_role": "replica",
    "zero_damaged_pages": "on",
}
EXPECTED = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "client_encoding": "UTF8",
    "search_path": "public",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "row_security": "off",
    "xmloption": "content",
    "quote_all_identifiers": "off",
    "session_replication_role": "origin",
    "zero_damaged_pages": "off",
}


@pytest.fixture
def hostile(database: PostgresSettings) -> PostgresSettings:
    with connect(database) as connection:
        for name, value in HOSTILE.items():
            value_list = sql.SQL(value) if name == "search_path" else sql.Literal(value)
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
                    sql.Identifier(database.database), sql.Identifier(name), value_list
                )
            )
    return database


def _settings(connection: psycopg.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(EXPECTED),))
    return dict(rows.fetchall())


def test_nothing_that_a_database_has_set_reaches_a_session_of_ours(hostile: PostgresSettings) -> None:
    with connect(hostile) as connection:
        assert _settings(connection) == EXPECTED
        connection.execute("SELECT pg_sleep(0.2)")


def test_nor_a_program_of_postgresql(hostile: PostgresSettings, programs: Programs) -> None:
    asked = [programs.path("psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--command=SELECT pg_sleep(0.2)"]
    shown = [name for name in EXPECTED if name not in ("search_path", "session_replication_role", "zero_damaged_pages")]
    argv = [*asked, *(f"--command=SHOW {name}" for name in shown)]
    said = run_program(argv, env=libpq_environment(hostile, server_major=programs.major)).splitlines()
    assert said[1:] == [EXPECTED[name] for name in shown]


def test_default_still_means_what_the_database_says(hostile: PostgresSettings) -> None:
    with connect(hostile) as connection:
        connection.execute("SET search_path TO DEFAULT")
        assert connection.execute("SHOW search_path").fetchone() == ("evil, pg_catalog",)


def test_a_function_in_the_way_of_the_first_statement_is_not_called(hostile: PostgresSettings) -> None:
    """It is found first by the database's search_path, and would run with our rights."""
    with connect(hostile) as connection:
        connection.execute("CREATE SCHEMA evil")
        for signature in ("set_config(text, text, boolean)", "current_setting(text, boolean)"):
            connection.execute(f"CREATE FUNCTION evil.{signature} RETURNS text LANGUAGE sql AS 'SELECT 1/0'".encode())
    with connect(hostile) as connection:
        assert _settings(connection) == EXPECTED


def test_behind_a_pooler_that_passes_no_options_on_the_session_is_pinned_all_the_same(
    hostile: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = psycopg.connect

    def pooler(**parameters: str) -> psycopg.Connection:
        if parameters["options"]:
            raise psycopg.OperationalError("connection failed: FATAL:  unsupported startup parameter: options")
        return real(**parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(psycopg, "connect", pooler)
    connection = open_session(hostile, autocommit=True)
    assert _settings(connection) == EXPECTED
    connection.close()


def test_settings_of_newer_servers_are_pinned_where_the_server_is_known_to_be_new() -> None:
    assert "transaction_timeout" not in startup_options()
    assert "transaction_timeout" not in startup_options(16)
    assert "-c transaction_timeout=0" in startup_options(17)
    assert "-c idle_session_timeout=0" in startup_options(14)


def test_what_a_session_on_a_copy_asks_for_itself_stays(hostile: PostgresSettings) -> None:
    """Before PostgreSQL 17 only the replication role keeps event triggers of a copy from running as our superuser."""
    ours = hostile.model_copy(update={"options": "-c session_replication_role=replica -c zero_damaged_pages=on"})
    with connect(ours) as connection:
        for name, value in (EXPECTED | {"session_replication_role": "replica", "zero_damaged_pages": "on"}).items():
            assert connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() == (value,), name
