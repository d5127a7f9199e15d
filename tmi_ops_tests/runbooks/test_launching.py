"""What Dagster's page may say of a recovery: decided without Dagster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.runbooks.launching import LaunchLimits, read_limits, require_within_limits


def test_without_settings_nothing_is_taken_and_what_was_not_said_is_no_matter() -> None:
    require_within_limits(LaunchLimits(), {"into": None}, {"listen": None, "allow": None}, {"where": None})
    for paths, addresses, sql in (
        ({"into": "/srv/new"}, {}, {}),
        ({}, {"listen": "localhost"}, {}),
        ({}, {"allow": ["10.0.0.0/8"]}, {}),
        ({}, {}, {"where": "true"}),
    ):
        with pytest.raises(SettingsError) as refused:
            require_within_limits(LaunchLimits(), paths, addresses, sql)
        assert refused.value.code is Code.NOT_ALLOWED_HERE


def test_what_the_settings_allow_is_taken_and_nothing_beside_it(tmp_path: Path) -> None:
    limits = read_limits(
        {
            "TMI_OPS_RECOVERY_DIRECTORIES": f"{tmp_path / 'clusters'},/srv/secrets",
            "TMI_OPS_RECOVERY_ADDRESSES": "10.0.0.5, 10.0.0.0/8",
            "TMI_OPS_RECOVERY_SQL": "on",
        }
    )
    (tmp_path / "clusters").mkdir()
    require_within_limits(
        limits,
        {"into": str(tmp_path / "clusters" / "new"), "secret_file": "/srv/secrets/s.yaml"},
        {"listen": "10.0.0.5", "allow": ["10.0.0.0/8"]},
        {"where": "id = 1"},
    )
    (tmp_path / "clusters" / "out").symlink_to("/etc")
    for path in ("clusters", "clusters/../evil", "clusters/out/cron.d/evil", "elsewhere"):
        with pytest.raises(SettingsError):
            require_within_limits(limits, {"into": str(tmp_path / path)}, {}, {})
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0/0"):
        require_within_limits(limits, {}, {"allow": ["10.0.0.0/8", "0.0.0.0/0"]}, {})
