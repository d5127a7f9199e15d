from __future__ import annotations

from tmi_ops.recovery.roles import role_statements

GLOBALS = """
SET default_transaction_read_only = off;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;
CREATE ROLE "tmi app";
ALTER ROLE "tmi app" WITH NOSUPERUSER LOGIN;
ALTER ROLE "tmi app" SET statement_timeout TO '5s';
GRANT readers TO "tmi app" WITH INHERIT TRUE GRANTED BY postgres;
"""


def test_each_statement_is_attributed_to_the_role_it_is_about() -> None:
    assert list(role_statements(GLOBALS)) == [
        ("postgres", "CREATE ROLE postgres;"),
        ("postgres", "ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;"),
        ("tmi app", 'CREATE ROLE "tmi app";'),
        ("tmi app", 'ALTER ROLE "tmi app" WITH NOSUPERUSER LOGIN;'),
        ("tmi app", "ALTER ROLE \"tmi app\" SET statement_timeout TO '5s';"),
        ("tmi app", 'GRANT readers TO "tmi app" WITH INHERIT TRUE;'),
    ]
