"""`tmi-ops status` and `tmi-ops metrics` as a person or a script runs them, with one thing after the other down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.commands import command
from tmi_ops_tests.objectives.conftest import Told
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
SERVED_WITHIN_S = 60.0


@pytest.fixture
def variables(told: Told) -> dict[str, str]:
    return variables_of(told.settings)


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tmi_ops.cli.main", *arguments]


@pytest.fixture
def tmi_ops(variables: dict[str, str], tmp_path: Path) -> Command:
    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return command(*arguments, env={**variables, **changes}, cwd=tmp_path)

    return run


def test_with_the_database_gone_the_store_still_tells_how_far_back(tmi_ops: Command, told: Told) -> None:
    done = tmi_ops("status", COLUMNS="120")
    assert told.base is not None
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"from {told.base.backup_id} plus WAL, verified" in done.stdout
    assert "could not be queried: PostgreSQL could not be reached" in done.stdout
    assert "DAGSTER_PG_HOST" in done.stdout
    assert done.stderr == ""


def test_a_breached_objective_is_exit_code_1_whatever_is_down(tmi_ops: Command) -> None:
    done = tmi_ops("status", "--json", TMI_OPS_RPO="1s")
    said = json.loads(done.stdout)
    assert (done.returncode, said["rpo"]["standing"]) == (1, "breached")
    assert said["rpo"]["cures"][0]["command"] == "tmi-ops doctor"


def test_with_everything_down_there_is_a_screen_all_the_same(tmi_ops: Command) -> None:
    nowhere = str(free_port())
    done = tmi_ops(
        "status",
        TMI_OPS_S3_ENDPOINT_URL=f"http://127.0.0.1:{nowhere}",
        DAGSTER_PG_HOST="127.0.0.1",
        DAGSTER_PG_PORT=nowhere,
    )
    assert done.returncode == 2
    assert "Dagster's database could not be queried" in done.stdout
    assert "tmi-ops doctor" in done.stdout
    assert "Traceback" not in done.stderr


def test_bad_settings_are_an_error_and_no_screen(tmi_ops: Command) -> None:
    done = tmi_ops("status", TMI_OPS_RPO="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TMI_OPS_RPO" in done.stderr


def test_the_textfile_is_what_node_exporter_reads_and_changes_whole(tmi_ops: Command, tmp_path: Path) -> None:
    file = tmp_path / "tmi_ops.prom"
    file.write_text("old")
    assert tmi_ops("metrics", "--textfile", str(file)).returncode == 0
    read = {sample.name: sample.value for family in parse_text(file.read_text()) for sample in family.samples}
    assert read["tmi_ops_drill_passed"] == 1
    assert [path.name for path in tmp_path.glob("tmi_ops.prom*")] == ["tmi_ops.prom"]
    assert "does not exist" in tmi_ops("metrics", "--textfile", str(tmp_path / "absent" / "x.prom")).stderr


def test_standard_output_is_openmetrics_and_a_reading_is_kept_when_asked(tmi_ops: Command, told: Told) -> None:
    done = tmi_ops("metrics")
    assert done.returncode == 0
    assert done.stdout.endswith("# EOF\n")
    assert list(told.store.list_objects("objectives/")) == []
    try:
        assert tmi_ops("metrics", "--record").returncode == 0
        assert len(list(told.store.list_objects("objectives/"))) == 1
    finally:
        told.store.delete([item.key for item in told.store.list_objects("objectives/")])


def test_metrics_are_served_until_stopped(variables: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    serving = subprocess.Popen(
        program("metrics", "--http", str(port)), env=variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert serving.stderr is not None
        assert f"http://127.0.0.1:{port}/metrics" in serving.stderr.readline()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=SERVED_WITHIN_S) as answer:  # noqa: S310
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            body = answer.read().decode()
        assert "tmi_ops_rpo_seconds{" in body
        taken = subprocess.run(
            program("metrics", "--http", str(port)), env=variables, capture_output=True, text=True, check=False
        )
        assert taken.returncode == 2
        assert "[TMI-1020]" in taken.stderr
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(SERVED_WITHIN_S) == 0


def test_watching_looks_again_until_stopped(variables: dict[str, str], tmp_path: Path) -> None:
    watching = subprocess.Popen(
        program("status", "--json", "--watch", "1"), env=variables, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
        assert first["at"] < second["at"]
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(SERVED_WITHIN_S) == 2


@pytest.mark.parametrize("address", ["", "x", "1:2:x", "70000", "0"])
def test_an_address_that_is_none_is_refused(tmi_ops: Command, address: str) -> None:
    done = tmi_ops("metrics", "--http", address)
    assert done.returncode == 2
    assert "is not [HOST:]PORT" in done.stderr


def test_help_of_both_comes_without_their_libraries() -> None:
    code = (
        "import sys; from tmi_ops.cli.main import tmi_ops; tmi_ops(['metrics', '--help'], standalone_mode=False); "
        "print({'prometheus_client', 'boto3', 'dagster', 'apprise'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
