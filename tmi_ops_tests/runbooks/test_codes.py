"""Who says yes to a recovery launched from Dagster's page, and to which plan: decided without Dagster."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from tmi_ops.cli.recover_code import code as recover_code
from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.runbooks.codes import (
    CODE_LASTS,
    PLAN_LASTS,
    LookedAt,
    looked_at,
    name_plan,
    new_code,
    remember_plan,
    require_plan,
    use_code,
)

NOW = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)
JOB = "recover_everything"
ASKED: dict[str, object] = {"into": "/srv/new", "to_time": "2026-11-27T19:40:00+00:00"}
DEEDS = ["tmi on db:5432", "recover beside", "serve irreversible"]
NAME = name_plan("production", JOB, ASKED, DEEDS)


@pytest.fixture
def plan(tmp_path: Path) -> LookedAt:
    """A plan that was looked at."""
    remember_plan(tmp_path, "production", JOB, NAME, ["Recover everything", "1. recover"], NOW)
    return looked_at(tmp_path, "production", JOB, NAME, NOW)


def test_a_code_is_good_once_and_for_the_plan_that_it_was_printed_for(tmp_path: Path, plan: LookedAt) -> None:
    code = new_code(tmp_path, plan, NOW)
    confirmed = use_code(tmp_path, "production", JOB, code.lower(), NOW + CODE_LASTS)
    require_plan(confirmed, NAME, JOB)
    with pytest.raises(SettingsError, match="used") as used:
        use_code(tmp_path, "production", JOB, code, NOW)
    assert used.value.code is Code.NOT_CONFIRMED
    for other in (
        name_plan("staging", JOB, ASKED, DEEDS),
        name_plan("production", "recover_rows", ASKED, DEEDS),
        name_plan("production", JOB, {**ASKED, "into": "/srv/other"}, DEEDS),
        name_plan("production", JOB, {**ASKED, "secret_file": "/srv/s"}, DEEDS),
        name_plan("production", JOB, ASKED, [*DEEDS[:2], "serve beside"]),
    ):
        with pytest.raises(SettingsError, match=f"is for plan {NAME}, but the plan is now {other}"):
            require_plan(confirmed, other, JOB)
    assert name_plan("production", JOB, dict(reversed(ASKED.items())), DEEDS) == NAME


@pytest.mark.parametrize(
    ("environment", "job", "at"),
    [
        ("staging", JOB, NOW),
        ("production", "recover_rows", NOW),
        ("production", JOB, NOW + CODE_LASTS + timedelta(seconds=1)),
    ],
    ids=["another environment", "another job", "too late"],
)
def test_a_code_is_good_for_nothing_else(
    tmp_path: Path, plan: LookedAt, environment: str, job: str, at: datetime
) -> None:
    code = new_code(tmp_path, plan, NOW)
    with pytest.raises(SettingsError, match="not confirmed"):
        use_code(tmp_path, environment, job, code, at)


@pytest.mark.parametrize("code", ["", "AAAA-AAAA", "../../etc/passwd"])
def test_what_is_no_code_is_refused(tmp_path: Path, plan: LookedAt, code: str) -> None:
    new_code(tmp_path, plan, NOW)
    with pytest.raises(SettingsError, match="not confirmed"):
        use_code(tmp_path, "production", JOB, code, NOW)


def test_nobody_else_reads_codes_or_learns_one_from_its_file(tmp_path: Path, plan: LookedAt) -> None:
    code = new_code(tmp_path, plan, NOW)
    (file,) = (tmp_path / "codes").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert code not in file.name + file.read_text()
    new_code(tmp_path, plan, NOW + CODE_LASTS * 2)
    assert not file.exists(), "what has ended is cleared away"


@pytest.mark.parametrize("name", ["", "ABCD-EFGH", "../codes", NAME])
def test_no_code_is_printed_for_a_plan_that_nobody_looked_at_here_lately(
    tmp_path: Path, plan: LookedAt, name: str
) -> None:
    for environment, job, at in (
        ("production", "recover_rows", NOW),
        ("staging", JOB, NOW),
        ("production", JOB, NOW + PLAN_LASTS * 2),
    ):
        with pytest.raises(SettingsError, match=r"made a plan|No plan given") as refused:
            looked_at(tmp_path, environment, job, name, at)
        assert f"launch {job} without `confirm`" in refused.value.hint
    if name != NAME:
        with pytest.raises(SettingsError, match=f"Name one of {NAME}"):
            looked_at(tmp_path, "production", JOB, name, NOW)


def test_the_command_shows_the_plan_again_and_prints_nothing_but_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_HOME", str(tmp_path))
    monkeypatch.setenv("TMI_ENV", "development")
    remember_plan(tmp_path, "development", JOB, NAME, ["Recover everything", "1. recover"], datetime.now(UTC))
    done = CliRunner().invoke(recover_code, [JOB, NAME.lower()])
    assert done.exit_code == 0, done.output
    assert "1. recover" in done.stderr
    assert use_code(tmp_path, "development", JOB, done.stdout.strip(), datetime.now(UTC)) == NAME
