"""A table's owner gives us casts, operators and functions to run: with our rights he would be superuser after it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.restore_point import create_restore_point
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.compare import compare_databases
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.schema.engine import snapshot
from tmi_ops.schema.migration import migrate
from tmi_ops.schema.state import read_state
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import open_store

pytestmark = pytest.mark.slow

_ATTACK = """
GRANT CREATE ON SCHEMA public TO {mallory};
SET ROLE {mallory};
CREATE TABLE public.innocent (id int PRIMARY KEY, note text);
INSERT INTO public.innocent VALUES (1, 'a');
CREATE TYPE public.colour AS ENUM ('red');
CREATE TABLE public.coloured (id public.colour PRIMARY KEY, other public.innocent);
INSERT INTO public.coloured VALUES ('red', (1, 'a'));
CREATE FUNCTION public.grab() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  BEGIN EXECUTE 'ALTER ROLE {mallory} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
  RAISE EXCEPTION 'it ran with the rights of %', current_user;
END $$;
CREATE FUNCTION public.innocent_text(r public.innocent) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN 'constant'; END $$;
CREATE CAST (public.innocent AS text) WITH FUNCTION public.innocent_text(public.innocent);
CREATE FUNCTION public.colour_text(c public.colour) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN 'constant'; END $$;
CREATE CAST (public.colour AS text) WITH FUNCTION public.colour_text(public.colour);
CREATE FUNCTION public.same(a varchar, b varchar) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN true; END $$;
CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same);
CREATE OPERATOR public.<> (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same);
CREATE FUNCTION public.same(a name, b text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN true; END $$;
RESET ROLE;
"""


@pytest.fixture
def mallory(database: PostgresSettings) -> Iterator[str]:
    name = f"mallory_{secrets.token_hex(4)}"
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {name}".encode())
        connection.execute(_ATTACK.replace("{mallory}", name).encode())
    yield name
    with connect(database) as connection:
        connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def _is_superuser(database: PostgresSettings, role: str) -> bool:
    with connect(database) as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    return bool(row and row[0])


def test_the_attack_works_on_who_casts(database: PostgresSettings, mallory: str) -> None:
    with connect(database) as connection, pytest.raises(Exception, match="it ran with the rights"):
        connection.execute("SELECT r::text FROM public.innocent r").fetchall()


def test_a_backup_its_proof_and_a_restore_point_run_nothing_of_it(
    settings: Settings, database: PostgresSettings, mallory: str, programs: Programs
) -> None:
    store = open_store(settings.store, settings.environment)
    manifest = back_up_logical(settings, store, "custom", SilentReport())
    assert manifest.fingerprints["public.innocent"].rows == 1
    assert verify_backup(settings, store, manifest, SilentReport()).verification.reasons == ()
    point = create_restore_point(settings, store, f"before-{secrets.token_hex(4)}", SilentReport())
    assert point.fingerprints["public.innocent"].rows == 1
    assert compare_databases(database, database, programs, SilentReport()).equal
    assert not _is_superuser(database, mallory)


def test_a_constant_cast_fakes_no_equality(settings: Settings, database: PostgresSettings, mallory: str) -> None:
    store = open_store(settings.store, settings.environment)
    before = create_restore_point(settings, store, f"before-{secrets.token_hex(4)}", SilentReport())
    with connect(database) as connection:
        connection.execute("UPDATE public.innocent SET note = 'b'")
    after = create_restore_point(settings, store, f"after-{secrets.token_hex(4)}", SilentReport())
    assert before.fingerprints["public.innocent"] != after.fingerprints["public.innocent"]


def test_a_check_of_the_schema_runs_nothing_of_it(database: PostgresSettings, mallory: str) -> None:
    migrate(database, SilentReport())
    with connect(database) as connection:
        connection.execute(
            "DROP INDEX uniq_linked_provider_sub; ALTER TABLE group_members DROP CONSTRAINT fk_group_members_group;"
            "INSERT INTO users (internal_uuid, provider, provider_user_id, email, name, created_at, modified_at)"
            " VALUES ('u', 'p', 's', 'e', 'n', now(), now());"
            "INSERT INTO linked_identities (id, user_internal_uuid, provider, provider_user_id, linked_at)"
            " SELECT i, 'u', 'p', 's', now() FROM generate_series(1, 2) i;"
            "INSERT INTO group_members (id, group_internal_uuid, added_at) VALUES ('1', 'nowhere', now())"
        )
    with snapshot(database) as connection:
        conflicts = {conflict.name: conflict.examples for conflict in read_state(connection).conflicts}
    assert conflicts == {"fk_group_members_group": ("id=1",), "uniq_linked_provider_sub": ("id=1 and 2",)}
    assert not _is_superuser(database, mallory)
