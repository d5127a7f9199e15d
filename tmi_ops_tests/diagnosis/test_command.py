"""`tmi-ops doctor`, as a person or a script runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tmi_ops.cli.main import main
from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.diagnosis.conftest import Variables

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(
    healthy: Variables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Its exit code and what it prints, in the healthy environment with some variables changed."""

    def run(*options: str, **changes: str) -> tuple[int, str]:
        for name, value in {**healthy, "COLUMNS": "200", **changes}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_PG_HOST", raising=False)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *options])
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


def test_a_healthy_environment_is_said_to_be_well(doctor: Run) -> None:
    code, said = doctor()
    assert code == 0
    assert "All is well." in said
    assert "✗" not in said
    assert said.count("✓") > 25


def test_the_first_cause_stands_in_a_box_with_its_fix_and_the_rest_is_counted(doctor: Run) -> None:
    port = str(free_port())
    code, said = doctor(POSTGRES_PORT=port, REDIS_PASSWORD="wrong")
    assert code == 1
    box = said[said.index("Root cause: port") :]
    assert "systemctl start postgresql" in box
    assert "broken: Redis password" in box
    assert "requirepass" not in box
    assert "skipped because of this" in box
    assert "requirepass" in doctor("--verbose", POSTGRES_PORT=port, REDIS_PASSWORD="wrong")[1]


def test_what_mends_it_can_be_copied_whole_from_a_narrow_terminal(doctor: Run) -> None:
    _, said = doctor(POSTGRES_USER="tmi_backup", COLUMNS="60")
    statement = "ALTER ROLE \"tmi_backup\" LOGIN VALID UNTIL 'infinity';"
    query = "SELECT * FROM pg_roles WHERE rolname = 'tmi_backup';  -- may it log in? expired?"
    assert {f"  {statement}", f"  {query}"} <= set(said.splitlines())


def test_json_holds_every_step_with_its_outcome_cause_and_fix(doctor: Run) -> None:
    code, said = doctor("--json", POSTGRES_PASSWORD="wrong")
    facts = json.loads(said)
    assert (code, facts["root_cause"], facts["healthy"]) == (1, "authentication", False)
    steps = {one["name"]: one for one in facts["checks"]}
    assert steps["authentication"]["findings"][0]["advice"]["text"].startswith("set POSTGRES_PASSWORD")
    assert steps["wal-level"]["outcome"] == "skipped"
    assert steps["wal-level"]["because"] == "authentication"
    assert steps["store-put"]["outcome"] == "ok"


def test_a_warning_alone_is_no_failure(doctor: Run) -> None:
    code, said = doctor(TMI_OPS_RPO="15m")
    assert code == 0
    assert "Worth fixing: our replication slot" in said
