"""`tmi-ops health` and `tmi-ops maintain`, as a person or a script runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.cli.main import main
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.health.conftest import eventually
from tmi_ops_tests.variables import postgres_variables

pytestmark = pytest.mark.slow


@dataclass
class Shown:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Shown]


@pytest.fixture
def tmi_ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, in an environment of its own."""

    def run(postgres: PostgresSettings, *arguments: str, **variables: str) -> Shown:
        environment = {
            "TMI_ENV": "development",
            **postgres_variables(postgres),
            "TMI_OPS_HOME": str(tmp_path),
            **variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        return Shown(int(ended.value.code or 0), printed.out, printed.err)

    return run


def test_a_server_that_could_lose_data_exits_1_and_shows_every_area(
    tmi_ops: Command, database: PostgresSettings
) -> None:
    shown = tmi_ops(database, "health")  # the tests' server runs without fsync
    assert shown.returncode == 1, shown.stderr
    for word in ("activity", "storage", "vacuum", "wal and replication", "indexes", "schema", "security"):
        assert f"\n{word}\n" in shown.stdout
    assert "✗ durability" in shown.stdout
    assert "→ switch on at once" in shown.stdout
    assert "This is the first reading" in shown.stdout
    assert "Rates are measured since the last reading" in tmi_ops(database, "health").stdout


def test_one_probe_shows_its_table_and_the_sql_that_helps(tmi_ops: Command, database: PostgresSettings) -> None:
    shown = tmi_ops(database, "health", "--probe", "durability")
    assert shown.returncode == 1
    assert "ALTER SYSTEM SET fsync = on;" in shown.stdout
    assert "full_page_writes" in shown.stdout
    assert "connections" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--probe", "connections"], 0),
        (["--probe", "connections", "--threshold", "connections=0,"], 0),
        (["--probe", "connections", "--threshold", "connections=0,", "--strict"], 1),
        (["--probe", "connections", "--threshold", "connections=0,0"], 1),
        (["--probe", "slow_queries"], 2),
    ],
)
def test_the_exit_code_says_how_it_is(
    tmi_ops: Command, database: PostgresSettings, arguments: list[str], code: int
) -> None:
    assert tmi_ops(database, "health", *arguments).returncode == code


def test_json_carries_readings_verdicts_and_thresholds_which_a_variable_changes(
    tmi_ops: Command, database: PostgresSettings
) -> None:
    shown = tmi_ops(database, "health", "--json", TMI_OPS_HEALTH_CONNECTIONS="0,100.5")
    assert shown.returncode == 1
    report = json.loads(shown.stdout)
    assert report["outcome"] == "critical"
    by_name = {probe["name"]: probe for probe in report["probes"]}
    connections = by_name["connections"]
    assert connections["outcome"] == "warning"
    assert connections["thresholds"] == {"warning": 0, "critical": 100.5, "unit": "%"}
    assert connections["numbers"]["connections"] >= 1
    assert connections["reading"]["max_connections"] == 100
    assert by_name["slow_queries"]["cause"] == "extension"


def test_a_variable_of_an_env_file_counts_too(tmi_ops: Command, database: PostgresSettings, tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_text("TMI_OPS_HEALTH_SKIP=durability\n")
    shown = tmi_ops(database, "health")
    assert "durability" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--probe", "lokcs"], "unknown probe: lokcs"),
        (["--threshold", "connections=high"], "is not two numbers"),
    ],
)
def test_a_wrong_word_exits_2_with_the_next_step(
    tmi_ops: Command, database: PostgresSettings, arguments: list[str], said: str
) -> None:
    refused = tmi_ops(database, "health", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "HINT:" in refused.stderr


def test_a_server_that_cannot_be_reached_exits_2(tmi_ops: Command, database: PostgresSettings) -> None:
    refused = tmi_ops(database.model_copy(update={"port": 1}), "health")
    assert refused.returncode == 2
    assert "could not be reached" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_maintenance_prints_a_plan_that_psql_could_run_then_does_it_then_has_nothing_to_do(
    tmi_ops: Command, database: PostgresSettings
) -> None:
    only = ("maintain", "--only", "vacuum", "--only", "analyze")
    with connect(database) as connection:
        connection.execute("CREATE TABLE changed AS SELECT generate_series(1, 1000) AS id")
    planned = eventually(lambda: one if "ANALYZE" in (one := tmi_ops(database, *only, "--plan")).stdout else None)
    assert planned.returncode == 0
    assert "ANALYZE public.changed;" in planned.stdout
    assert "locks: SHARE UPDATE EXCLUSIVE" in planned.stdout
    with connect(database) as connection:
        connection.execute(planned.stdout.encode())
    with connect(database) as connection:
        connection.execute("INSERT INTO changed SELECT * FROM changed")
    assert eventually(lambda: "ANALYZE" in tmi_ops(database, *only, "--plan").stdout)
    done = tmi_ops(database, *only)
    assert done.returncode == 0, done.stderr
    assert "✓ ANALYZE public.changed;" in done.stdout
    assert eventually(lambda: "Nothing to do" in tmi_ops(database, *only).stdout)


def test_maintenance_outside_its_window_exits_2_but_shows_its_plan(
    tmi_ops: Command, database: PostgresSettings
) -> None:
    begins = datetime.now(UTC) + timedelta(hours=2)
    window = f"{begins:%H:%M}-{begins + timedelta(hours=1):%H:%M}"
    with connect(database) as connection:
        connection.execute("CREATE TABLE changed AS SELECT generate_series(1, 1000) AS id")
    assert eventually(lambda: "ANALYZE" in tmi_ops(database, "maintain", "--plan").stdout)
    refused = tmi_ops(database, "maintain", TMI_OPS_MAINTENANCE_WINDOW=window)
    assert refused.returncode == 2
    assert f"({window} UTC) is closed" in refused.stderr
    assert tmi_ops(database, "maintain", "--plan", TMI_OPS_MAINTENANCE_WINDOW=window).returncode == 0


def test_a_duration_that_is_none_is_refused(tmi_ops: Command, database: PostgresSettings) -> None:
    refused = tmi_ops(database, "maintain", "--max-duration", "soon")
    assert refused.returncode == 2
    assert "is not a duration" in refused.stderr
