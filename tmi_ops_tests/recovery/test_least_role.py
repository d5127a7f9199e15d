"""A restore into a live server runs the dump as a role that can do nothing else there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.backup.archive.toc import ArchiveHeader, Toc, TocEntry
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.least_role import needs_superuser, ownership_statements, superuser_owners
from tmi_ops.recovery.restore import RestoreChoices, execute_restore, plan_restore
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.manifest import Manifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops_tests.backup.source import drop_role, fill_source

HEADER = ArchiveHeader((1, 16, 0), 4, 8, 1, "zstd", "tmi", "17.2", "17.2")


def toc(*entries: tuple[str, str, str] | tuple[str, str, str, str, str]) -> Toc:
    """Entries of kind, name, definition, and where it matters statement that drops it, and owner."""
    return Toc(HEADER, tuple(_entry(*entry) for entry in entries))


def _entry(desc: str, tag: str, definition: str, drop: str = "", owner: str = "") -> TocEntry:
    return TocEntry(1, False, 0, 0, tag, desc, 2, definition, drop, "", "public", "", "", "", owner, (1,))


@pytest.mark.parametrize(
    ("desc", "definition"),
    [
        ("EVENT TRIGGER", "CREATE EVENT TRIGGER t ON sql_drop EXECUTE FUNCTION public.f()"),
        ("EXTENSION", "CREATE EXTENSION adminpack"),
        ("FUNCTION", "CREATE FUNCTION public.f(int) RETURNS int LANGUAGE c AS 'lib', 'f'"),
        ("FUNCTION", "CREATE FUNCTION public.f(int) RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'"),
        ("FUNCTION", "no statement"),
        ("TYPE", "CREATE TYPE public.t (INPUT = public.i, OUTPUT = public.o)"),
        ("PUBLICATION", "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')"),
        ("CAST", "CREATE CAST (public.a AS public.b) WITHOUT FUNCTION"),
        ("ACL", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO mallory"),
        ("ACL", "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO mallory"),
        ("ACL", "GRANT SELECT ON TABLE pg_catalog.pg_authid TO mallory"),
        ("ACL", "GRANT CREATE ON SCHEMA pg_catalog TO mallory"),
        ("ACL", "GRANT pg_execute_server_program TO mallory"),
        ("ACL", "GRANT ALL ON DATABASE tmi TO mallory"),
        ("ACL", "GRANT SET ON PARAMETER session_preload_libraries TO mallory"),
        ("ACL", "GRANT SELECT ON TABLE public.t TO app; ALTER ROLE mallory SUPERUSER"),
        ("DEFAULT ACL", "DO $$ BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END $$"),
    ],
)
def test_what_only_a_superuser_may_make_is_named_before_anything_is_loaded(desc: str, definition: str) -> None:
    assert needs_superuser(toc((desc, "name", definition)), {"pgcrypto"}) == (f"{desc.lower()} public.name",)


def test_what_an_ordinary_database_holds_needs_no_superuser() -> None:
    found = needs_superuser(
        toc(
            ("TABLE", "t", "CREATE TABLE public.t (a int)", "DROP TABLE public.t;", "postgres"),
            ("EXTENSION", "pgcrypto", "CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public"),
            ("FUNCTION", "f()", "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'"),
            ("TYPE", "mood", "CREATE TYPE public.mood AS ENUM ('sad')"),
            ("PUBLICATION", "p", "CREATE PUBLICATION p WITH (publish = 'insert')"),
            ("ACL", "TABLE t", "REVOKE ALL ON TABLE public.t FROM app;\nGRANT SELECT(a) ON TABLE public.t TO app;"),
            ("ACL", "t", "SET SESSION AUTHORIZATION x;\nGRANT ALL ON TYPE t.t TO y;\nRESET SESSION AUTHORIZATION;"),
            ("DEFAULT ACL", "d", "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES TO x"),
        ),
        {"pgcrypto"},
    )  # fmt: skip
    assert found == ()


def test_only_the_owners_of_what_superusers_own_must_be_superusers() -> None:
    drop = "DROP SOMETHING;"
    found = superuser_owners(
        toc(
            ("TABLE", "t", "CREATE TABLE public.t (a int)", drop, "app"),
            ("FOREIGN DATA WRAPPER", "w", "CREATE FOREIGN DATA WRAPPER w", drop, "boss"),
            ("EVENT TRIGGER", "e", "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()", drop, "boss"),
            ("PUBLICATION", "p", "CREATE PUBLICATION p", drop, "app"),
            ("PUBLICATION", "all", "CREATE PUBLICATION all FOR ALL TABLES", drop, "chief"),
        )
    )
    assert {owner: len(objects) for owner, objects in found.items()} == {"boss": 2, "chief": 1}


def test_owners_are_given_before_rights_and_nothing_else_is() -> None:
    statements = list(
        ownership_statements(
            toc(
                ("ACL", "SCHEMA s", "GRANT USAGE ON SCHEMA s TO app;\nGRANT CREATE ON SCHEMA s TO dba;"),
                ("TABLE", "t", "", 'DROP TABLE public."t;t";\n', 'odd "owner"'),
                ("FUNCTION", "f(integer)", "", "DROP FUNCTION public.f(integer);\n", "app"),
                ("BLOB METADATA", "4711..4712", "4711\n4712\n", "", "app"),
                ("ACL", "LARGE OBJECTS 4711..4712", "GRANT SELECT ON LARGE OBJECT 4711 TO x;", "", "app"),
                ("SEQUENCE", "t_id_seq", "", "", "app"),
                ("TABLE DATA", "t", "", "", "app"),
                ("INDEX", "i", "", "DROP INDEX public.i;", "app"),
            )
        )
    )
    assert [statement.strip() for statement in statements] == [
        'ALTER TABLE public."t;t" OWNER TO "odd ""owner"""',
        'ALTER FUNCTION public.f(integer) OWNER TO "app"',
        'ALTER LARGE OBJECT 4711 OWNER TO "app"',
        'ALTER LARGE OBJECT 4712 OWNER TO "app"',
        "GRANT USAGE ON SCHEMA s TO app",
        "GRANT CREATE ON SCHEMA s TO dba",
        "GRANT SELECT ON LARGE OBJECT 4711 TO x",
        "GRANT SELECT ON LARGE OBJECT 4712 TO x",
    ]


@pytest.mark.parametrize(
    "drop",
    [
        "DROP TABLE public.t OWNER TO x; ALTER ROLE mallory SUPERUSER; ALTER TABLE public.t",
        "DROP ROLE mallory SUPERUSER; ALTER TABLE public.t",
        "DROP DATABASE production",
        "DROP FUNCTION pg_catalog.pg_read_file(text)",
        "DROP FUNCTION public.f() SECURITY DEFINER; ALTER TABLE public.t",
        "DROP SYSTEM SET x = 1 --",
    ],
)
def test_a_statement_that_does_more_than_give_an_owner_is_not_run(drop: str) -> None:
    with pytest.raises(RecoveryError, match="contains other statements"):
        list(ownership_statements(toc(("TABLE", "t", "", drop, "app"))))


ATTACK = """
CREATE FUNCTION public.fair(a int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE TABLE bitten (a int CHECK (public.fair(a))); INSERT INTO bitten VALUES (1);
CREATE OR REPLACE FUNCTION public.fair(a int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  BEGIN RESET SESSION AUTHORIZATION; RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN EXECUTE 'ALTER ROLE {mallory} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''cat >/dev/null'''; EXECUTE 'ALTER ROLE {mallory} CREATEDB';
  EXCEPTION WHEN OTHERS THEN NULL; END;
  RETURN true; END $$;
ALTER TABLE bitten OWNER TO {mallory}; ALTER FUNCTION fair OWNER TO {mallory};
GRANT SELECT (a) ON bitten TO PUBLIC; REVOKE DELETE ON bitten FROM {mallory};
SELECT lo_from_bytea(4711, 'large'); ALTER LARGE OBJECT 4711 OWNER TO {mallory};
"""


@pytest.fixture(scope="module")
def mallory() -> str:
    return f"mallory_{secrets.token_hex(4)}"


@pytest.fixture
def attacked(settings: Settings, store: ObjectStore, mallory: str) -> Iterator[Manifest]:
    fill_source(settings.postgres, role=mallory)
    with connect(settings.postgres) as connection:
        connection.execute(ATTACK.replace("{mallory}", mallory).encode())
    yield back_up_logical(settings, store, "custom", SilentReport())
    with connect(settings.postgres) as connection:
        connection.execute("DROP TABLE bitten")
    drop_role(settings.postgres, mallory)


@pytest.mark.slow
def test_a_table_owner_s_function_is_no_superuser_in_a_restore_and_the_copy_is_equal(
    settings: Settings, store: ObjectStore, server: PostgresSettings, attacked: Manifest, mallory: str
) -> None:
    name = f"restored_{secrets.token_hex(4)}"
    try:
        plan = plan_restore(settings, attacked, name, replace=False)
        result = execute_restore(settings, store, plan, SilentReport())
        assert result.comparison.differences == ()
        assert _facts(server, mallory) == (False, False, 0)
        with connect(settings.postgres) as connection:
            connection.execute("CREATE OPERATOR FAMILY odd USING btree")
        manifest = back_up_logical(settings, store, "custom", SilentReport())
        refused = plan_restore(settings, manifest, f"{name}_2", replace=False)
        with pytest.raises(
            RecoveryError, match=r"Only a superuser can load this backup: operator family public\.odd"
        ) as caught:
            execute_restore(settings, store, refused, SilentReport())
        assert "--as-superuser" in caught.value.hint
        choices = RestoreChoices(as_superuser=True)
        asked = plan_restore(settings, manifest, f"{name}_2", replace=False, choices=choices)
        assert execute_restore(settings, store, asked, SilentReport()).comparison.differences == ()
        assert _facts(server, mallory) == (True, True, 0)  # what asking for it means
    finally:
        with connect(server) as connection:
            for database in (name, f"{name}_2"):
                connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())


def _facts(server: PostgresSettings, role: str) -> tuple[bool, bool, int]:
    """Whether the role is a superuser, may create databases; and how many roles of restores are left."""
    with connect(server) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tmi\\_ops\\_load\\_%%')"
            " FROM pg_roles WHERE rolname = %s",
            (role,),
        ).fetchone()
    assert row is not None
    return row
