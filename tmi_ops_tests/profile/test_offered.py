"""With another profile than TMI's, nothing that is TMI's alone is offered, by command or in Dagster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tmi_ops.definitions import environment_definitions
from tmi_ops.health.registry import PROBES, probes_of
from tmi_ops.profile import NONE, Profile, SqlCheck
from tmi_ops.profile.tmi import TMI
from tmi_ops_tests.commands import command

OF_TMI = {"migrate_and_validate", "validate_schema", "access"}


def offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str) -> tuple[set[str], set[str], set[str]]:
    """Assets, jobs, sensors and schedules of the definitions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMI_OPS_PROFILE", profile)
    defs = environment_definitions("development")
    assets = {key.to_user_string().partition("/")[2] for key in defs.resolve_all_asset_keys()}
    jobs = {job.name for job in defs.resolve_all_job_defs()}
    automatic = {one.name for one in (*(defs.sensors or ()), *(defs.schedules or ()))}
    return assets, jobs, automatic


def test_without_models_and_roles_dagster_has_no_asset_job_or_sensor_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assets, jobs, automatic = offered(monkeypatch, tmp_path, "tmi")
    bare_assets, bare_jobs, bare_automatic = offered(monkeypatch, tmp_path, "none")
    assert assets - bare_assets == {"schema/migration", "schema/validation", "access/roles"}
    assert jobs - bare_jobs == OF_TMI
    assert automatic - bare_automatic == {"schema_drift", "daily_access"}
    assert not bare_assets - assets
    assert "protect" in bare_jobs


def test_health_asks_about_models_only_where_there_are_any_and_own_checks_only_where_there_are_any() -> None:
    of_models, own = {"migration", "schema_findings"}, {"own_checks"}
    every = {probe.name for probe in PROBES}
    checked = Profile(name="shop", checks=(SqlCheck(name="one", sql="SELECT 1"),))
    assert {probe.name for probe in probes_of(TMI)} == every - own
    assert {probe.name for probe in probes_of(NONE)} == every - own - of_models
    assert {probe.name for probe in probes_of(checked)} == every - of_models


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("migrate", "--plan"), "declares no schema"),
        (("check",), "declares no schema"),
        (("roles", "plan"), "declares no roles"),
        (("recover", "rows", "--threat-model", "x", "--to-time", "1h ago"), "has no root called 'threat-model'"),
        (("recover", "rows", "--root", "x", "--to-time", "1h ago"), "not of the form NAME=KEY"),
    ],
)
def test_commands_that_need_what_the_profile_lacks_are_refused_before_anything_is_connected_to(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = command(*words, env={"PATH": os.environ["PATH"], "TMI_OPS_PROFILE": "none"}, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
