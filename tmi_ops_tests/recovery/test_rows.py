"""The comparison of rows: only their order may differ, and differing rows are named."""

from __future__ import annotations

import secrets

import pytest

from tmi_ops.backup.dump import LogicalFormat
from tmi_ops.backup.fingerprint import fingerprint_tables, read_sequences
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.snapshot import list_tables, pin_text_output
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery import load, verify
from tmi_ops.recovery.compare import compare_databases
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.manifest import Manifest, SequenceRange, Verification
from tmi_ops.store.objects import ObjectStore
from tmi_ops_tests.recovery.conftest import BackedUp

pytestmark = pytest.mark.slow

# Rows that moved; a child whose columns come back in another order; nothing but order differs in the copy.
_ORDER = "UPDATE threats SET severity = severity WHERE id % 100 = 7; UPDATE heir SET b = b WHERE a = 1;"
_CONTENT = "UPDATE heir SET b = 'secret' WHERE a = 2; DELETE FROM threats WHERE id = 9; SELECT lo_put(4711, 0, 'x');"


def _verification(
    settings: Settings, store: ObjectStore, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, change: str
) -> Verification:
    def load_and_change(
        address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: SilentReport
    ) -> None:
        load.load_dump(address, fetched, programs, report)
        with connect(address) as connection:
            connection.execute(change.encode())

    monkeypatch.setattr(verify, "load_dump", load_and_change)
    return verify_backup(settings, store, manifest, SilentReport()).verification


@pytest.mark.parametrize("format_", ["custom", "directory", "plain"])
def test_order_is_no_difference_and_each_value_is(
    source: Settings, store: ObjectStore, format_: LogicalFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(source.postgres) as connection:
        connection.execute(
            "CREATE TABLE base (a int); CREATE TABLE heir (c int PRIMARY KEY) INHERITS (base);"
            "ALTER TABLE base ADD b text;"
            "INSERT INTO heir (a, b, c) SELECT i, 'b' || i, -i FROM generate_series(1, 9) i;"
            "SELECT lo_from_bytea(4711, 'large'); CREATE SEQUENCE never;"
            "CREATE FUNCTION mislead() RETURNS void LANGUAGE plpgsql AS "
            "$$ BEGIN\nCOPY public.heir (a, c, b) FROM stdin;\nEND $$"
        )
    manifest = back_up_logical(source, store, format_, SilentReport())
    verification = _verification(source, store, manifest, monkeypatch, _ORDER + _CONTENT)
    assert verification.rows == 2000 + 3999 + 3 + 10 + 9
    assert verification.reasons == (
        "public.heir has the same number of rows (9), but other content: the row with c = -2 has another b",
        "public.threats had 4000 rows, the restored copy has 3999: the row with id = 9 is missing",
        "the 1 large objects have the same size, but other content",
    )
    assert "secret" not in "".join(verification.reasons)


def test_two_running_databases_are_compared_as_a_proof_does(
    source: Settings, server: PostgresSettings, programs: Programs
) -> None:
    address, name = source.postgres, f"copy_{secrets.token_hex(4)}"
    with connect(address) as connection:
        connection.execute("SELECT lo_from_bytea(4711, 'large'); CREATE SEQUENCE never START 5")
    copy = server.model_copy(update={"database": name})
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {address.database}".encode())
    try:
        with connect(copy) as connection:
            connection.execute("UPDATE threats SET severity = severity WHERE id % 100 = 7")
        equal = compare_databases(address, copy, programs, SilentReport())
        assert (equal.differences, equal.rows) == ((), 2000 + 4000 + 3 + 10)
        with connect(copy) as connection:
            connection.execute(
                "DELETE FROM threats WHERE id = 9; SELECT lo_put(4711, 0, 'x'), nextval('never');"
                "ALTER TABLE audit ALTER what SET DEFAULT ''"
            )
        found = "; ".join(compare_databases(address, copy, programs, SilentReport()).differences)
    finally:
        with connect(server) as connection:
            connection.execute(f"DROP DATABASE {name}".encode())
    assert "public.threats had 4000 rows, the restored copy has 3999: the row with id = 9 is missing" in found
    assert "sequence public.never is at 5, in the source it was at 5, not called yet" in found
    assert "1 large objects have the same size, but other content" in found
    assert "table public.audit was what text, in the restored copy it is what text DEFAULT" in found


def test_a_backup_of_a_release_that_read_every_row_by_sql_is_proven_as_ever_but_for_the_row_that_is_lost(
    backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(backed_up.settings.postgres) as connection:
        pin_text_output(connection)
        fingerprints = fingerprint_tables(connection, list_tables(connection), SilentReport())
        sequences = {name: SequenceRange(before=at, after=at) for name, at in read_sequences(connection).items()}
    old = backed_up.manifest.model_copy(
        update={
            "digest_method": "record",
            "fingerprints": fingerprints,
            "sequences": sequences,
            "objects": tuple(item for item in backed_up.manifest.objects if item.name != "contents.json"),
        }
    )
    lost = _verification(backed_up.settings, backed_up.store, old, monkeypatch, "DELETE FROM threats WHERE id = 7")
    assert lost.reasons == ("public.threats had 4000 rows, the restored copy has 3999",)
