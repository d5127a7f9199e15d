"""`tmi-ops drill` and `tmi-ops drills`, on the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tmi_ops_tests.commands import command
from tmi_ops_tests.drill.lives import NAME, Lived, left_behind
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow


def run(lived: Lived, place: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**variables_of(lived.settings), "COLUMNS": "200", "TZ": "UTC", **variables}
    return command(*words, env=env, cwd=place)


def test_a_drill_is_told_listed_and_shown_again(lived: Lived, tmp_path: Path) -> None:
    done = run(lived, tmp_path, "drill", "--to-name", NAME, "--html", "drill.html", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASSED ")
    assert f"recovered to the restore point {NAME}, asked for" in done.stdout
    assert "Evidence: s3://" in done.stdout
    drill_id = done.stdout.split()[1].rstrip(":")
    assert drill_id in (tmp_path / "drill.html").read_text()
    assert drill_id in run(lived, tmp_path, "drills").stdout
    shown = run(lived, tmp_path, "drills", drill_id[:20], "--json")
    assert json.loads(shown.stdout)["outcome"] == "passed"
    assert run(lived, tmp_path, "drills", "1999").returncode == 2
    assert left_behind(lived.settings) == []


def test_a_missed_objective_is_exit_code_1_and_json_is_nothing_but_json(lived: Lived, tmp_path: Path) -> None:
    done = run(lived, tmp_path, "drill", "--latest", "--json", "--quiet", TMI_OPS_RTO="0.001s")
    assert done.returncode == 1, done.stderr
    evidence = json.loads(done.stdout)
    assert evidence["outcome"] == "failed"
    assert evidence["reasons"][0].startswith("Recovery time objective: Recovered and verified in")


def test_what_cannot_be_drilled_is_exit_code_2(lived: Lived, tmp_path: Path) -> None:
    unknown = run(lived, tmp_path, "drill", "--to-name", "never made", "--quiet")
    assert unknown.returncode == 2
    assert "never made" in unknown.stderr
    assert run(lived, tmp_path, "drill", "--latest", "--seed", "3").returncode == 2
    nothing = run(lived, tmp_path, "drill", "--quiet", TMI_OPS_S3_PREFIX="nothing-here")
    assert nothing.returncode == 2
    assert "tmi-ops backup base" in nothing.stderr or "base backup" in nothing.stderr
