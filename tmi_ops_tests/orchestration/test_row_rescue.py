"""The job `recover_rows`: a dry run by default, the deed once the environment's name is typed; of rows and columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import DagsterInvalidConfigError, ExecuteInProcessResult, validate_run_config

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.definitions import environment_definitions
from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.row_rescue import (
    OfBackup,
    OfRoot,
    OfTable,
    OfThreatModel,
    RowsConfig,
    ToLsn,
    ToName,
    ToTime,
)
from tmi_ops.postgres.connections import connect
from tmi_ops.profile.tmi import TMI
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.launches import code_for

Run = Callable[..., ExecuteInProcessResult]


def count(settings: Settings) -> int:
    with connect(settings.postgres) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.slow
def test_rows_come_back_only_once_it_is_confirmed(
    run_job: Run, as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(as_variables.postgres) as connection:
        connection.execute("CREATE TABLE ledger (i integer PRIMARY KEY, note text)")
        connection.execute("INSERT INTO ledger SELECT i, 'note ' || i FROM generate_series(1, 5) i")
        back_up_logical(as_variables, open_store(as_variables.store, "development"), "custom", SilentReport())
        connection.execute("DELETE FROM ledger WHERE i > 2")

    def launch(of: dict[str, object] | None = None, **more: object) -> ExecuteInProcessResult:
        rows = {"table": {"name": "ledger", **(of or {})}}
        config = {"past": {"backup": {"id": "latest"}}, "rows": rows, "cache": False, **more}
        return run_job("recover_rows", {"ops": {"recover_rows_steps": {"config": config}}})

    def code(**more: object) -> str:
        return code_for(as_variables, "recover_rows", launch(**more))  # type: ignore[arg-type]

    assert launch().success
    assert not launch(confirm="production").success
    assert not launch(confirm="development").success, "a code is needed, too"
    sly = launch({"where": "pg_read_file('/etc/passwd') > ''"})
    assert not sly.success, "no SQL from the page unless it is allowed"
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
        assert not launch({"column": ["note"], "set_column": ["note"]}).success
        monkeypatch.setenv("TMI_OPS_RECOVERY_SQL", "on")
        of_column: dict[str, object] = {"column": ["note"], "where": "i > 2"}
        assert launch(of_column, confirm="development", code=code(of=of_column)).success
        assert connection.execute("SELECT string_agg(note, ', ' ORDER BY i) FROM ledger").fetchone() == (
            "note 3, note 4, note 5",
        )


TABLE, THEN = {"table": {"name": "threats"}}, {"to_name": {"name": "noon"}}


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        ({}, "past', 'rows"),
        ({"past": THEN}, "rows"),
        ({"rows": TABLE}, "past"),
        ({"past": {}, "rows": TABLE}, "past"),
        ({"past": {**THEN, "backup": {"id": "latest"}}, "rows": TABLE}, "past"),
        ({"past": THEN, "rows": {"table": {}}}, "name"),
    ],
)
def test_the_launchpad_asks_for_the_past_and_the_rows(config: dict[str, object], lacks: str) -> None:
    job = environment_definitions("development").resolve_job_def("recover_rows")
    with pytest.raises(DagsterInvalidConfigError, match=lacks):
        validate_run_config(job, {"ops": {"recover_rows_steps": {"config": config}}})


@pytest.mark.parametrize(
    ("past", "moment"),
    [
        (ToLsn(lsn="0/3000148", exclusive=True), "just before LSN 0/3000148"),
        (ToTime(at="2026-11-24T03:44:13+00:00"), "2026-11-24 03:44:13 UTC"),
        (ToName(name="noon"), "the restore point noon"),
        (OfBackup(id="latest"), "the backup latest"),
    ],
)
def test_the_past_is_what_was_named(past: ToTime | ToLsn | ToName | OfBackup, moment: str) -> None:
    assert RowsConfig(past=past, rows=OfTable(name="t")).moment().describe() == moment


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (OfTable(name="t"), "all rows of t"),
        (OfTable(name="t", key=["1", "2"]), "the row 1, 2 of t"),
        (OfTable(name="t", where="a > 1"), "the rows of t where a > 1"),
        (OfThreatModel(id="17"), "the row 17 of threat_models"),
        (OfRoot(root="threat-model=17"), "the row 17 of threat_models"),
        (OfTable(name="t", column=["c"]), "c of t"),
        (OfTable(name="t", column=["c"], key=["1"]), "c of t, with values for the row 1 of t"),
        (OfTable(name="t", column=["c"], threat_model="17"), "c of t, with values for the row 17 of threat_models"),
        (OfTable(name="t", set_column=["c"]), "the values of c in all rows of t"),
    ],
)
def test_the_rows_are_those_that_were_named(rows: OfTable | OfThreatModel | OfRoot, words: str) -> None:
    assert RowsConfig(past=OfBackup(id="latest"), rows=rows).selection(TMI).describe() == words


@pytest.mark.parametrize(
    "rows",
    [
        OfTable(name="t", key=["1"], where="true"),
        OfTable(name="t", column=["c"], set_column=["d"]),
        OfTable(name="t", threat_model="17"),
    ],
)
def test_what_means_two_things_is_refused(rows: OfTable) -> None:
    with pytest.raises(SettingsError) as refused:
        RowsConfig(past=OfBackup(id="latest"), rows=rows).selection(TMI)
    assert refused.value.hint
