"""What Dagster's page may say of a recovery, and who says yes: decided without Dagster."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.runbooks.launching import CODE_LASTS, LaunchLimits, new_code, read_limits, refuse_beyond, use_code

NOW = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)
JOB = "recover_everything"


def test_without_settings_nothing_is_taken_and_what_was_not_said_is_no_matter() -> None:
    refuse_beyond(LaunchLimits(), {"into": None}, {"listen": None, "allow": None}, {"where": None})
    for paths, addresses, sql in (
        ({"into": "/srv/new"}, {}, {}),
        ({}, {"listen": "localhost"}, {}),
        ({}, {"allow": ["10.0.0.0/8"]}, {}),
        ({}, {}, {"where": "true"}),
    ):
        with pytest.raises(SettingsError, match="not taken from Dagster's page"):
            refuse_beyond(LaunchLimits(), paths, addresses, sql)


def test_what_the_settings_allow_is_taken_and_nothing_beside_it(tmp_path: Path) -> None:
    limits = read_limits(
        {
            "TMI_OPS_RECOVERY_DIRECTORIES": f"{tmp_path / 'clusters'},/srv/secrets",
            "TMI_OPS_RECOVERY_ADDRESSES": "10.0.0.5, 10.0.0.0/8",
            "TMI_OPS_RECOVERY_SQL": "on",
        }
    )
    (tmp_path / "clusters").mkdir()
    refuse_beyond(
        limits,
        {"into": str(tmp_path / "clusters" / "new"), "secret_file": "/srv/secrets/s.yaml"},
        {"listen": "10.0.0.5", "allow": ["10.0.0.0/8"]},
        {"where": "id = 1"},
    )
    (tmp_path / "clusters" / "out").symlink_to("/etc")
    for path in ("clusters", "clusters/../evil", "clusters/out/cron.d/evil", "elsewhere"):
        with pytest.raises(SettingsError):
            refuse_beyond(limits, {"into": str(tmp_path / path)}, {}, {})
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0/0"):
        refuse_beyond(limits, {}, {"allow": ["10.0.0.0/8", "0.0.0.0/0"]}, {})


def test_a_code_is_good_once(tmp_path: Path) -> None:
    code = new_code(tmp_path, "production", JOB, NOW)
    use_code(tmp_path, "production", JOB, code.lower(), NOW + CODE_LASTS)
    with pytest.raises(SettingsError, match="was used"):
        use_code(tmp_path, "production", JOB, code, NOW)


@pytest.mark.parametrize(
    ("environment", "job", "at"),
    [
        ("staging", JOB, NOW),
        ("production", "recover_rows", NOW),
        ("production", JOB, NOW + CODE_LASTS + timedelta(seconds=1)),
    ],
    ids=["another environment", "another job", "too late"],
)
def test_a_code_is_good_for_nothing_else(tmp_path: Path, environment: str, job: str, at: datetime) -> None:
    code = new_code(tmp_path, "production", JOB, NOW)
    with pytest.raises(SettingsError, match="not confirmed"):
        use_code(tmp_path, environment, job, code, at)


@pytest.mark.parametrize("code", ["", "AAAA-AAAA", "../../etc/passwd"])
def test_what_is_no_code_is_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(SettingsError, match="not confirmed"):
        use_code(tmp_path, "production", JOB, code, NOW)


def test_nobody_else_reads_codes_or_learns_one_from_its_file(tmp_path: Path) -> None:
    code = new_code(tmp_path, "production", JOB, NOW)
    (file,) = (tmp_path / "codes").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert code not in file.name + file.read_text()
    new_code(tmp_path, "production", JOB, NOW + CODE_LASTS * 2)
    assert not file.exists(), "what has ended is cleared away"
