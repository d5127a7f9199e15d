"""The units that `init` writes run as who called it, where it was called, and hold nothing secret."""

from __future__ import annotations

import configparser
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tmi_ops.adoption import leaving, services
from tmi_ops.adoption.leaving import Leftover
from tmi_ops.adoption.services import Site, is_enabled, render, unit_files, units_for, write_units
from tmi_ops.errors import RecoveryError, SettingsError
from tmi_ops.settings import Settings, load_settings
from tmi_ops_tests.deploy.files import DEPLOY, unit

SITE = Site("production", "shop", Path("/srv/ops/bin/tmi-ops"), Path("/srv/my shop"), Path("/srv/my shop/.tmi_ops"))
TEMPLATES = [DEPLOY / "systemd" / f"tmi-ops-{kind}@.service" for kind in ("wal", "heartbeat")]


def service(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser["Service"]


def settings_in(directory: Path, **values: str) -> Settings:
    said = {"TMI_ENV": "production", "POSTGRES_DB": "shop", "POSTGRES_SSLMODE": "require", **values}
    return load_settings(said, directory)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_a_unit_is_that_of_deploy_with_our_account_program_and_directories_in_it(template: Path) -> None:
    text = render(template.read_text(), SITE)
    for of_a_fleet in ("%i", "/opt/", "/etc/tmi-ops", "/var/lib", "@production", "Group="):
        assert of_a_fleet not in text
    ours, theirs = service(text), unit(template)["Service"]
    assert ours["User"] == "shop"
    assert ours["WorkingDirectory"] == "/srv/my shop"
    assert ours["Environment"] == "TMI_ENV=production"
    assert ours["ReadWritePaths"] == '"/srv/my shop/.tmi_ops"'
    assert shlex.split(ours["ExecStart"])[1:] == shlex.split(theirs["ExecStart"])[1:]
    assert shlex.split(ours["ExecStart"])[0] == "/srv/ops/bin/tmi-ops"
    moved = {"User", "Group", "WorkingDirectory", "Environment", "StateDirectory", "StateDirectoryMode", "ExecStart"}
    same = set(theirs) - moved - {"ProtectHome"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_what_lies_in_the_temporary_directory_is_seen_by_the_service() -> None:
    temporary = "/tmp"  # noqa: S108 - named, not used
    in_tmp = Site(
        "staging", "shop", SITE.program, SITE.directory, Path("/srv/home"), seen=(Path(f"{temporary}/.s.PGSQL"),)
    )
    ours = service(render(TEMPLATES[0].read_text(), in_tmp))
    assert (ours["PrivateTmp"], ours["ReadWritePaths"]) == ("no", '"/srv/home" "/tmp"')


def test_a_store_that_is_a_directory_may_be_written_to() -> None:
    ours = service(render(TEMPLATES[0].read_text(), replace(SITE, store=Path("/mnt/backups"))))
    assert ours["ReadWritePaths"] == '"/srv/my shop/.tmi_ops" "/mnt/backups"'


@pytest.mark.parametrize("path", ["/srv/50%i", "/srv/$HOME", '/srv/a"b', "/srv/a\nUser=root"])
def test_a_path_that_systemd_would_misread_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="with a special meaning in a systemd unit"):
        render(TEMPLATES[0].read_text(), Site("production", "shop", SITE.program, Path(path), SITE.home))


def test_units_name_no_secret_are_understood_by_systemd_and_written_anew_only_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMI_OPS_HOME", raising=False)
    settings = settings_in(tmp_path, POSTGRES_PASSWORD="quite-secret", TMI_OPS_S3_SECRET_ACCESS_KEY="also-secret")
    units = units_for(settings, tmp_path)
    assert not any(one.written for one in units)
    write_units(units)
    assert [one.file for one in units] == list(unit_files(settings))
    assert all(one.written for one in units_for(settings, tmp_path))
    for one in units:
        assert "quite-secret" not in one.text
        assert "also-secret" not in one.text
        assert service(one.text)["User"] == pwd.getpwuid(os.geteuid()).pw_name
        assert one.file.stat().st_mode & 0o777 == 0o644
        assert shlex.split(service(one.text)["ExecStart"])[0] == str(Path(sys.prefix) / "bin" / "tmi-ops")
    units[0].file.write_text("[Service]\n")
    assert [one.written for one in units_for(settings, tmp_path)] == [False, True]
    write_units(units)
    analyze = shutil.which("systemd-analyze")
    if analyze:
        named = [str(one.file) for one in units]
        done = subprocess.run([analyze, "verify", *named], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_root_enables_the_file_itself_and_anybody_else_a_copy_that_only_root_may_change(tmp_path: Path) -> None:
    one = units_for(settings_in(tmp_path), tmp_path)[0]
    assert one.command(as_root=True) == f"systemctl enable --now {one.file}"
    assert one.command(as_root=False) == (
        f"sudo install -m 0644 {one.file} /etc/systemd/system/ "
        "&& sudo systemctl enable --now tmi-ops-wal-production.service"
    )


def test_systemd_enables_the_unit_by_the_command_as_printed_and_uninit_waits_until_it_is_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--root` instead of a running systemd: links are made there as they would be in /."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        pytest.skip("no systemctl here")
    settings = settings_in(tmp_path)
    units = units_for(settings, tmp_path)
    write_units(units)
    monkeypatch.setattr(services, "SYSTEM_UNITS", tmp_path / "system" / "etc/systemd/system")
    (tmp_path / "system").mkdir()
    words = shlex.split(units[0].command(as_root=True))
    words.remove("--now")  # needs a systemd that runs
    inside = tmp_path / "system" / units[0].file.relative_to("/")
    inside.parent.mkdir(parents=True)
    inside.write_text(units[0].text)
    subprocess.run([systemctl, f"--root={tmp_path / 'system'}", *words[1:]], check=True, capture_output=True)
    assert [is_enabled(one.file) for one in units] == [True, False]
    plan = [Leftover("unit", str(one.file), is_enabled(one.file)) for one in units]
    with pytest.raises(RecoveryError, match=r"tmi-ops-wal-production\.service is installed") as refused:
        leaving.leave(settings, plan)
    assert "systemctl disable --now tmi-ops-wal-production.service" in refused.value.hint
    assert len(unit_files(settings)) == len(units)
