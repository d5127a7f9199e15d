from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from tmi_ops.errors import DatabaseError, IntegrityError, RecoveryError
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.progress import SilentReport
from tmi_ops.recovery import restore
from tmi_ops.recovery.compare import Comparison
from tmi_ops.recovery.restore import execute_restore, plan_restore
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.raw_s3 import key_ending, read_raw, write_raw
from tmi_ops_tests.recovery.conftest import BackedUp

pytestmark = pytest.mark.slow


@pytest.fixture
def target(server: PostgresSettings) -> Iterator[str]:
    """A name for a database; everything whose name starts with it is dropped afterwards."""
    name = f"restored_{secrets.token_hex(4)}"
    yield name
    for database in _databases(server, name):
        with connect(server) as connection:
            connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)'.encode())


def _databases(server: PostgresSettings, start: str) -> list[str]:
    with connect(server) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1", (start,)
        ).fetchall()
    return [name for (name,) in rows]


def _count(server: PostgresSettings, database: str, table: str) -> int:
    with connect(server, database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def _restore(backed_up: BackedUp, target: str, *, replace: bool = False) -> restore.RestoreResult:
    plan = plan_restore(backed_up.settings, backed_up.manifest, target, replace=replace)
    return execute_restore(backed_up.settings, backed_up.store, plan, SilentReport())


def test_a_backup_is_restored_into_a_new_database_and_proven_there(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    result = _restore(backed_up, target)
    assert result.comparison.equal
    assert result.kept_as is None
    assert _databases(server, target) == [target]
    assert _count(server, target, "threats") == 4000


def test_an_existing_database_is_refused_and_left_alone(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {target}".encode())
    with pytest.raises(RecoveryError, match="exists") as caught:
        plan_restore(backed_up.settings, backed_up.manifest, target, replace=False)
    assert "--replace" in caught.value.hint
    assert _databases(server, target) == [target]


def test_a_replaced_database_is_kept_under_another_name_with_its_rows(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {target}".encode())
    with connect(server, target) as connection:
        connection.execute("CREATE TABLE precious AS SELECT generate_series(1, 7)")
    session = psycopg.connect(**connection_parameters(server, target))
    result = _restore(backed_up, target, replace=True)
    assert result.kept_as is not None
    assert _count(server, target, "threats") == 4000
    assert _count(server, result.kept_as, "precious") == 7
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


def test_a_copy_that_is_not_equal_never_takes_the_name(
    backed_up: BackedUp, server: PostgresSettings, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {target}".encode())
    monkeypatch.setattr(
        restore, "compare_with_source", lambda *_: Comparison(("public.threats lost a row",), fingerprints={})
    )
    with pytest.raises(RecoveryError, match="lost a row") as caught:
        _restore(backed_up, target, replace=True)
    assert "not touched" in caught.value.detail
    assert _databases(server, target) == [target]
    with connect(server, target):
        pass


def test_a_copy_that_is_not_equal_is_taken_on_a_person_s_word(
    backed_up: BackedUp, server: PostgresSettings, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        restore, "compare_with_source", lambda *_: Comparison(("public.threats lost a row",), fingerprints={})
    )
    choices = restore.RestoreChoices(accept_differences=True)
    plan = plan_restore(backed_up.settings, backed_up.manifest, target, replace=False, choices=choices)
    result = execute_restore(backed_up.settings, backed_up.store, plan, SilentReport())
    assert result.comparison.differences == ("public.threats lost a row",)
    assert _databases(server, target) == [target]


def test_a_failure_keeps_its_cause_where_the_copy_cannot_be_dropped(
    backed_up: BackedUp, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecoveryError("the first cause")

    def refuse(*_: object) -> None:
        raise DatabaseError("the connection is gone")

    monkeypatch.setattr(restore, "load_archive", fail)
    monkeypatch.setattr(restore, "drop_database", refuse)
    with pytest.raises(RecoveryError, match="the first cause"):
        _restore(backed_up, target)


def test_a_damaged_backup_leaves_no_trace_on_the_server(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    key = key_ending(backed_up.settings.store, "database.dump")
    write_raw(backed_up.settings.store, key, read_raw(backed_up.settings.store, key)[:-1] + b"?")
    with pytest.raises(IntegrityError):
        _restore(backed_up, target)
    assert _databases(server, target) == []


def test_names_that_cannot_be_exchanged_leave_the_old_database_open(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {target}".encode())
    plan = plan_restore(backed_up.settings, backed_up.manifest, target, replace=True)
    taken = replace(plan, keep_as="postgres")
    with pytest.raises(RecoveryError, match="could not be renamed to"):
        execute_restore(backed_up.settings, backed_up.store, taken, SilentReport())
    assert _databases(server, target) == [target]
    with connect(server, target):
        pass


def test_roles_that_the_server_lacks_are_created_and_others_stay(
    backed_up: BackedUp, server: PostgresSettings, target: str
) -> None:
    with connect(server) as connection:
        connection.execute(f"ALTER ROLE {backed_up.role} CONNECTION LIMIT 3".encode())
    assert _restore(backed_up, target).created_roles == ()
    with connect(server) as connection:
        row = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (backed_up.role,)).fetchone()
    assert row == (3,)


def test_roles_of_a_restore_that_fails_are_gone_again(
    backed_up: BackedUp, server: PostgresSettings, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fail(*_: object) -> None:
        seen.extend(_roles(server, backed_up.role))
        raise RecoveryError("the cause")

    monkeypatch.setattr(restore, "compare_with_source", fail)
    away = f"{backed_up.role}_away"
    with connect(server) as connection:
        connection.execute(f"ALTER ROLE {backed_up.role} RENAME TO {away}".encode())
    try:
        with pytest.raises(RecoveryError, match="the cause"):
            _restore(backed_up, target)
        assert (seen, _roles(server, backed_up.role)) == ([backed_up.role], [])
    finally:
        with connect(server) as connection:
            connection.execute(f"ALTER ROLE {away} RENAME TO {backed_up.role}".encode())


def _roles(server: PostgresSettings, name: str) -> list[str]:
    with connect(server) as connection:
        return [role for (role,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", (name,))]


def test_a_name_that_postgresql_would_cut_is_refused(backed_up: BackedUp) -> None:
    with pytest.raises(RecoveryError, match="63 bytes"):
        plan_restore(backed_up.settings, backed_up.manifest, "x" * 64, replace=False)


def test_a_wrong_password_says_what_to_check(backed_up: BackedUp) -> None:
    wrong = backed_up.settings.postgres.model_copy(update={"password": None})
    settings = backed_up.settings.model_copy(update={"postgres": wrong})
    with pytest.raises(DatabaseError) as caught:
        plan_restore(settings, backed_up.manifest, "anything", replace=False)
    assert "POSTGRES_PASSWORD" in caught.value.hint
