from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tmi_ops.drill import heartbeat
from tmi_ops.drill.chain import Bound, check_chain
from tmi_ops.drill.heartbeat import beat, read_chain, write_heartbeats
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.schema.validation import validate_schema
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops_tests.variables import variables_of


def test_a_database_without_heartbeat_says_so(database: PostgresSettings) -> None:
    assert read_chain(database) is None


def test_beats_written_at_once_by_many_are_one_unbroken_chain(database: PostgresSettings) -> None:
    with ThreadPoolExecutor(6) as pool:
        written = list(pool.map(lambda _: beat(database), range(24)))
    rows = read_chain(database)
    assert rows is not None
    assert sorted(one.id for one in written) == [row.id for row in rows] == list(range(1, 25))
    assert check_chain(rows, Bound(), rows) == ()


def test_beats_past_their_time_are_removed_at_the_old_end_only(
    database: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "TRIMMED_AT_A_TIME", 2)
    for _ in range(5):
        beat(database)
    with connect(database) as connection:
        connection.execute("UPDATE tmi_ops.heartbeat SET written_at = now() - interval '90 days' WHERE id <> 4")
    beat(database)
    rows = read_chain(database)
    assert rows is not None
    assert [row.id for row in rows] == [3, 4, 5, 6]
    monkeypatch.setattr(heartbeat, "TRIMMED_AT_A_TIME", 1000)
    with connect(database) as connection:
        connection.execute("UPDATE tmi_ops.heartbeat SET written_at = now() - interval '90 days'")
    last = beat(database)
    assert read_chain(database) == [last]


@pytest.mark.slow
def test_the_schema_of_the_heartbeat_is_no_finding_of_validation(database: PostgresSettings) -> None:
    migrate(database, SilentReport())
    before = validate_schema(database).findings
    beat(database)
    assert validate_schema(database).findings == before


def test_a_role_that_may_not_make_the_schema_is_told_whose_work_it_is(database: PostgresSettings) -> None:
    with connect(database) as connection:
        connection.execute("CREATE ROLE beatless LOGIN PASSWORD 'beatless'")
    role = database.model_copy(update={"user": "beatless"})
    role = PostgresSettings.model_validate({**role.model_dump(), "password": "beatless"})
    try:
        with pytest.raises(DatabaseError) as refused:
            beat(role)
        assert refused.value.code is Code.HEARTBEAT_REFUSED
        assert "TMI_OPS_HEARTBEAT_USER" in refused.value.hint
    finally:
        with connect(database) as connection:
            connection.execute("DROP ROLE beatless")


def test_it_goes_on_until_told_to_stop_and_waits_for_a_server_that_is_away(
    database: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, tried = threading.Event(), []

    def flaky(postgres: PostgresSettings) -> object:
        tried.append(None)
        if len(tried) == 2:
            raise DatabaseError("away", transient=True)
        if len(tried) == 4:
            stop.set()
        return beat(postgres)

    monkeypatch.setattr(heartbeat, "beat", flaky)
    assert write_heartbeats(database, 0.01, stop, SilentReport()) == 3
    rows = read_chain(database)
    assert rows is not None
    assert len(rows) == 3


@pytest.mark.slow
def test_the_command_writes_one_beat_or_beats_until_it_is_stopped(settings: Settings, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tmi_ops.cli.main", "heartbeat", "--quiet"]
    environment = {**variables_of(settings), "COLUMNS": "200"}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "Written: heartbeat 1 of " in done.stdout
    beating = subprocess.Popen([*argv, "--every", "0.1"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    while len(read_chain(settings.postgres) or []) < 3:
        assert beating.poll() is None
    beating.send_signal(signal.SIGTERM)
    said, _ = beating.communicate(timeout=30)
    assert beating.returncode == 0
    assert b"Stopped." in said
