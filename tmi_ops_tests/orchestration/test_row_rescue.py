"""The job `recover_rows`: a dry run by default, the deed once the environment's name is typed; of rows and columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import ExecuteInProcessResult

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.launches import code_for

pytestmark = pytest.mark.slow

Run = Callable[..., ExecuteInProcessResult]


def count(settings: Settings) -> int:
    with connect(settings.postgres) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


def test_rows_come_back_only_once_it_is_confirmed(
    run_job: Run, as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(as_variables.postgres) as connection:
        connection.execute("CREATE TABLE ledger (i integer PRIMARY KEY, note text)")
        connection.execute("INSERT INTO ledger SELECT i, 'note ' || i FROM generate_series(1, 5) i")
        back_up_logical(as_variables, open_store(as_variables.store, "development"), "custom", SilentReport())
        connection.execute("DELETE FROM ledger WHERE i > 2")
    config = {"backup": "latest", "table": "ledger", "cache": False}

    def launch(**more: object) -> ExecuteInProcessResult:
        return run_job("recover_rows", {"ops": {"recover_rows_steps": {"config": {**config, **more}}}})

    def code(**more: object) -> str:
        return code_for(as_variables, "recover_rows", launch(**more))

    assert launch().success
    assert not launch(confirm="production").success
    assert not launch(confirm="development").success, "a code is needed, too"
    assert not launch(where="pg_read_file('/etc/passwd') > ''").success, "no SQL from the page unless it is allowed"
    assert not launch(conflicts="whatever").success
    assert count(as_variables) == 2
    assert not launch(confirm="development", code=code(), conflicts="take-past").success, "another plan than was shown"
    yes = code()
    with connect(as_variables.postgres) as connection:
        connection.execute("DELETE FROM ledger WHERE i = 2")
    assert not launch(confirm="development", code=yes).success, "more rows than were shown"
    done = launch(confirm="development", code=code())
    assert done.success
    assert count(as_variables) == 5
    with connect(as_variables.postgres) as connection:
        connection.execute("ALTER TABLE ledger DROP COLUMN note")
        assert not launch(table=None, column=["note"]).success
        monkeypatch.setenv("TMI_OPS_RECOVERY_SQL", "on")
        of_column: dict[str, object] = {"column": ["note"], "where": "i > 2"}
        assert launch(**of_column, confirm="development", code=code(**of_column)).success
        assert connection.execute("SELECT string_agg(note, ', ' ORDER BY i) FROM ledger").fetchone() == (
            "note 3, note 4, note 5",
        )
