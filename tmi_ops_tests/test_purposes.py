"""Who logs in for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.errors import SettingsError
from tmi_ops.settings import PURPOSES, Purpose, load_settings

HERE = {"POSTGRES_USER": "tmi_admin", "POSTGRES_PASSWORD": "of-admin", "TMI_OPS_S3_BUCKET": "b"}
ROOT = Path(__file__).parents[1]


def login(directory: Path, purpose: Purpose | None, **more: str) -> tuple[str, str | None]:
    postgres = load_settings(HERE | more, directory, purpose).postgres
    return postgres.user, postgres.password.get_secret_value() if postgres.password else None


@pytest.mark.parametrize("purpose", [None, *Purpose])
def test_without_roles_of_their_own_one_role_does_everything(tmp_path: Path, purpose: Purpose | None) -> None:
    assert login(tmp_path, purpose) == ("tmi_admin", "of-admin")


def test_a_named_role_does_its_purpose_and_no_other(tmp_path: Path) -> None:
    named = {"TMI_OPS_MONITOR_USER": "tmi_monitor", "TMI_OPS_MONITOR_PASSWORD": "of-monitor"}
    assert login(tmp_path, Purpose.MONITOR, **named) == ("tmi_monitor", "of-monitor")
    assert login(tmp_path, Purpose.BACKUP, **named) == ("tmi_admin", "of-admin")
    assert login(tmp_path, None, **named) == ("tmi_admin", "of-admin")


def test_wal_is_received_by_the_role_of_backups_and_beats_are_written_by_the_owner_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    named = {
        "TMI_OPS_BACKUP_USER": "tmi_backup",
        "TMI_OPS_BACKUP_PASSWORD": "of-backup",
        "TMI_OPS_OWNER_USER": "tmi_owner",
        "TMI_OPS_OWNER_PASSWORD": "of-owner",
    }
    assert login(tmp_path, Purpose.RECEIVER, **named) == ("tmi_backup", "of-backup")
    assert login(tmp_path, Purpose.HEARTBEAT, **named) == ("tmi_owner", "of-owner")
    own = {**named, "TMI_OPS_RECEIVER_USER": "wal", "TMI_OPS_RECEIVER_PASSWORD": "of-wal"}
    assert login(tmp_path, Purpose.RECEIVER, **own) == ("wal", "of-wal")


def test_a_password_may_lie_in_a_file_and_no_role_is_tried_with_anothers(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("of-monitor\n")
    user = {"TMI_OPS_MONITOR_USER": "tmi_monitor"}
    assert login(tmp_path, Purpose.MONITOR, **user, TMI_OPS_MONITOR_PASSWORD_FILE=str(secret))[1] == "of-monitor"
    assert login(tmp_path, Purpose.MONITOR, **user) == ("tmi_monitor", None)
    with pytest.raises(SettingsError, match="TMI_OPS_MONITOR_PASSWORD_FILE"):
        login(tmp_path, Purpose.MONITOR, **user, TMI_OPS_MONITOR_PASSWORD_FILE=str(tmp_path / "nowhere"))


def test_every_purpose_is_declared_with_a_role_that_roles_apply_makes_or_an_administrators_rights() -> None:
    kinds = {kind.value for kind in RoleKind}
    assert set(PURPOSES) == set(Purpose)
    assert {need.role for need in PURPOSES.values()} <= kinds | {""}


def test_the_documented_table_is_the_declared_one() -> None:
    text = (ROOT / "docs" / "access.md").read_text()
    for purpose, need in PURPOSES.items():
        role = f"`tmi_{need.role}`" if need.role else "an administrator"
        assert f"| {purpose} | {need.does} | {need.rights.describe()} | {role} |" in text
