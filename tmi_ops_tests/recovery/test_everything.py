"""A database with at least one of everything PostgreSQL can define is verified in every format."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.backup.dump import LOGICAL_FORMATS, LogicalFormat
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore

pytestmark = pytest.mark.slow

CASES = Path(__file__).parent / "cases"
ROLES = ("every Odd Owner", "every_app", 'every ""quoted"" role')


@pytest.fixture(scope="module")
def everything(server: PostgresSettings, programs: Programs) -> Iterator[PostgresSettings]:
    address = server.model_copy(update={"database": f"every {secrets.token_hex(4)}"})
    with connect(server) as connection:
        connection.execute(f'CREATE DATABASE "{address.database}"'.encode())
    argv = [programs.path("psql"), "-Xq", "--set=ON_ERROR_STOP=1", f"--file={CASES / 'everything.sql'}"]
    run_program([*argv, "--output=/dev/null"], env=libpq_environment(address))
    yield address
    with connect(address) as connection:
        connection.execute("ALTER SUBSCRIPTION sub SET (slot_name = NONE)")
        connection.execute("DROP SUBSCRIPTION sub")
    with connect(server) as connection:
        connection.execute(f'DROP DATABASE "{address.database}" WITH (FORCE)'.encode())
        for role in ROLES:
            connection.execute(f'DROP ROLE IF EXISTS "{role}"'.encode())


@pytest.mark.parametrize("format_", LOGICAL_FORMATS)
def test_everything_postgresql_defines_comes_back_and_is_proven(
    settings: Settings, store: ObjectStore, everything: PostgresSettings, format_: LogicalFormat
) -> None:
    source = settings.model_copy(update={"postgres": everything})
    manifest = back_up_logical(source, store, format_, SilentReport())
    verification = verify_backup(source, store, manifest, SilentReport()).verification
    assert verification.reasons == ()
    assert verification.outcome == "proven"
    assert verification.but_for == ()
