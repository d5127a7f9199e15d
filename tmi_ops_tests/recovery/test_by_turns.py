"""A database is copied to its own server without running its functions as a superuser."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.backup.archive.toc import Toc, TocEntry
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.compare import compare_databases
from tmi_ops.recovery.new_database import drop_database
from tmi_ops.recovery.two_role_load import Turn, turns_of
from tmi_ops.runbooks.corruption.in_place import copy_database
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.recovery.test_least_role import ATTACK, HEADER


def entry(
    number: int, desc: str, tag: str, definition: str = "", section: int = 2, dependencies: tuple[int, ...] = ()
) -> TocEntry:
    return TocEntry(
        number, False, 0, 0, tag, desc, section, definition, "", "", "public", "", "", "", "owner", dependencies
    )


def test_who_loads_what() -> None:
    extension = "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA public"
    toc = Toc(
        HEADER,
        (
            entry(1, "ENCODING", "ENCODING", section=1),
            entry(2, "EXTENSION", "hstore", extension.format("hstore")),
            entry(3, "COMMENT", "EXTENSION hstore", dependencies=(2,)),
            entry(4, "EXTENSION", "pg_stat_statements", extension.format("pg_stat_statements")),
            entry(5, "COMMENT", "EXTENSION pg_stat_statements", dependencies=(4,)),
            entry(6, "TABLE", "t", "CREATE TABLE public.t (a int)"),
            entry(7, "TABLE DATA", "t", section=3),
            entry(8, "TABLE DATA", "of_an_extension", section=3),
            entry(9, "INDEX", "i", "CREATE INDEX i ON public.t (a)", section=4),
            entry(10, "EVENT TRIGGER", "e", "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()", section=4),
            entry(11, "ACL", "TABLE t", "GRANT SELECT ON TABLE public.t TO app;", section=1),
            entry(12, "ACL", "FUNCTION f", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO app;", section=1),
        ),
    )
    assert turns_of(toc, {"hstore"}) == (
        (
            Turn((1, 2, 3), by_superuser=False),
            Turn((4, 5), by_superuser=True),
            Turn((6,), by_superuser=False),
            Turn((7,), by_superuser=False, side_by_side=True),
            Turn((8,), by_superuser=True, side_by_side=True),
            Turn((9,), by_superuser=False, side_by_side=True),
            Turn((10,), by_superuser=True, side_by_side=True),
        ),
        Turn((12,), by_superuser=True, rights=True),
    )


@pytest.fixture
def mallory(database: PostgresSettings) -> Iterator[str]:
    name = f"mallory_{secrets.token_hex(4)}"
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    drop_database(database, f"{database.database}_copy")
    drop_database(database, database.database)
    with connect(database, "postgres") as connection:
        connection.execute(f"DROP ROLE {name}")


@pytest.mark.slow
def test_a_copy_has_what_superusers_made_and_ran_no_owners_function_as_one(
    database: PostgresSettings, programs: Programs, mallory: str, tmp_path: Path
) -> None:
    with connect(database) as connection:
        connection.execute("CREATE EXTENSION amcheck")
        connection.execute(ATTACK.replace("{mallory}", mallory).encode())
        connection.execute(
            "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RETURN; END $$;"
            "CREATE EVENT TRIGGER watching ON sql_drop EXECUTE FUNCTION watch();"
            "CREATE FUNCTION safe(text, text) RETURNS bool LANGUAGE internal LEAKPROOF AS 'texteq';"
        )
        connection.execute(f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO {mallory}")
    copy = database.model_copy(update={"database": f"{database.database}_copy"})
    copy_database(database, copy, tmp_path / "dump", programs, SilentReport())
    comparison = compare_databases(database, copy, programs, SilentReport())
    assert comparison.differences == ()
    with connect(copy) as connection:
        powers = connection.execute(
            "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = %s", (mallory,)
        ).fetchone()
        assert powers == (False, False)
        assert connection.execute("SELECT FROM pg_roles WHERE rolname LIKE 'tmi_ops_load_%'").fetchone() is None
        owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'bitten'"
        assert connection.execute(owner).fetchone() == (mallory,)
