from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dagster import AssetSpec, DefaultScheduleStatus, Definitions

from tmi_ops.definitions import environment_definitions
from tmi_ops.schema.rules import Rule
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.orchestration.conftest import key

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return environment_definitions("development")


def specs(definitions: Definitions) -> list[AssetSpec]:
    return list(definitions.resolve_all_asset_specs())


def test_every_asset_says_what_it_is_whose_it_is_and_what_it_runs_on(definitions: Definitions) -> None:
    for spec in specs(definitions):
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name not in (None, "default"), spec.key


def test_every_asset_names_the_command_that_does_the_same_without_dagster(definitions: Definitions) -> None:
    for spec in specs(definitions):
        assert "`tmi-ops " in (spec.description or ""), spec.key


def test_a_run_launched_by_command_line_is_of_the_code_location_that_the_daemon_has_loaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dagster"]
    (loaded,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert loaded["python_module"] == {
        "module_name": project["module_name"],
        "location_name": project["code_location_name"],
    }


def test_every_key_begins_with_the_environment_so_that_several_can_share_a_ui() -> None:
    for environment in ("development", "production"):
        assert {spec.key.path[0] for spec in specs(environment_definitions(environment))} == {environment}


def test_no_group_is_shared_by_two_environments_which_the_ui_would_draw_as_one() -> None:
    of_one, of_another = (
        {spec.group_name for spec in specs(environment_definitions(name))} for name in ("staging", "production")
    )
    assert of_one & of_another == set()
    assert "production_backup" in of_another


def test_a_backup_waits_for_the_schema_and_its_proof_for_the_backup(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert graph.get(key("schema", "validation")).parent_keys == {key("schema", "migration")}
    assert graph.get(key("backup", "logical")).parent_keys == {key("schema", "migration")}
    assert graph.get(key("backup", "logical_verified")).parent_keys == {key("backup", "logical")}


def test_every_rule_of_the_schema_is_a_check_and_the_proof_is_one_that_blocks(definitions: Definitions) -> None:
    checks = {
        (check.asset_key, check.name): definitions.resolve_asset_graph().get_check_spec(check)
        for check in definitions.resolve_asset_graph().asset_check_keys
    }
    of_the_schema = {name for asset, name in checks if asset == key("schema", "validation")}
    assert of_the_schema == {rule.value for rule in Rule} - {"summary", "other_name"}
    assert checks[key("backup", "logical_verified"), "equal_to_source"].blocking


def test_the_nightly_backup_runs_at_two_and_by_default_wherever_data_matters() -> None:
    for environment, status in (
        ("development", DefaultScheduleStatus.STOPPED),
        ("production", DefaultScheduleStatus.RUNNING),
    ):
        schedule = environment_definitions(environment).resolve_schedule_def("nightly_logical_backup")
        assert schedule.cron_schedule == "0 2 * * *"
        assert schedule.default_status is status


@pytest.mark.slow
def test_loading_the_definitions_imports_nothing_that_only_a_run_needs() -> None:
    heavy = ["alembic", "boto3", "botocore", "tmi_ops.schema.models", "tmi_ops.backup.logical", "tmi_ops.stack"]
    program = f"import sys, tmi_ops.definitions; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.slow
def test_dagster_accepts_the_committed_workspace_and_instance(database: PostgresSettings, tmp_path: Path) -> None:
    """With an empty database for Dagster's records, as on the first start."""
    command = [str(Path(sys.executable).with_name("dagster")), "definitions", "validate", "-w", "workspace.yaml"]
    assert database.password is not None
    environment = {
        "TMI_ENV": "staging",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DAGSTER_PG_HOST": database.host,
        "DAGSTER_PG_PORT": str(database.port),
        "DAGSTER_PG_USERNAME": database.user,
        "DAGSTER_PG_PASSWORD": database.password.get_secret_value(),
        "DAGSTER_PG_DB": database.database,
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Validation successful for code location tmi_ops" in done.stderr + done.stdout
    dg = str(Path(sys.executable).with_name("dg"))
    listed = subprocess.run(
        [dg, "list", "defs"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert listed.returncode == 0, listed.stderr[-2000:]
    assert "rpo_guard" in listed.stdout


def test_an_unknown_environment_is_refused_with_the_next_step() -> None:
    environment = {"TMI_ENV": "nowhere", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", "import tmi_ops.definitions"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode != 0
    assert "'nowhere' is an unknown environment" in done.stderr
    assert "declare your own" in done.stderr
