"""A protected database in a Dagster project of somebody else's, as the documentation shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dagster import Definitions
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

from tmi_ops.components import ProtectedDatabase
from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.resources import Environment
from tmi_ops.settings import declare, load_settings

DOCUMENTED = re.search(
    r"```yaml\n(type: tmi_ops\.components\.ProtectedDatabase\n.*?)```",
    (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(),
    re.DOTALL,
)
BESIDE = """
type: tmi_ops.components.ProtectedDatabase
attributes:
  name: library
  settings: {POSTGRES_HOST: library-db, TMI_OPS_PROFILE: none, TMI_OPS_RPO: 4h, TMI_OPS_RTO: 2h}
"""


def loaded(sandbox: DefsFolderSandbox, **files: str) -> Definitions:
    for name, text in files.items():
        (sandbox.defs_folder_path / name).mkdir()
        (sandbox.defs_folder_path / name / "defs.yaml").write_text(text)
    with sandbox.build_all_defs() as definitions:
        return definitions


@pytest.fixture(autouse=True)
def _no_settings_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TMI_ENV", raising=False)
    monkeypatch.chdir(tmp_path)


def test_ten_lines_add_a_database_and_a_second_one_stands_beside_it() -> None:
    assert DOCUMENTED is not None
    assert len(DOCUMENTED[1].splitlines()) <= 10
    with create_defs_folder_sandbox() as sandbox:
        definitions = loaded(sandbox, shop=DOCUMENTED[1], library=BESIDE)
    repository = definitions.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert {"shop__logical_backup", "shop__base_backup", "library__logical_backup"} <= jobs
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert {"shop/backup/logical", "shop/objectives/rpo", "library/backup/wal"} <= keys
    assert {key.partition("/")[0] for key in keys} == {"shop", "library"}


def test_a_run_finds_the_settings_that_were_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    monkeypatch.setenv("POSTGRES_HOST", "another.example.com")
    assert DOCUMENTED is not None
    text = re.sub(r"\n.*S3_SECRET.*|\n.*S3_ACCESS.*", "", DOCUMENTED[1])
    with create_defs_folder_sandbox() as sandbox:
        resource = (loaded(sandbox, shop=text).resources or {})["shop__environment"]
    assert isinstance(resource, Environment)
    settings = resource.settings
    assert (settings.name, settings.postgres.host) == ("shop", "shop-db.example.com")
    assert settings.postgres.password is not None
    assert settings.postgres.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(resource), "what Dagster shows of it holds no secret"


def test_a_secret_in_the_clear_is_refused() -> None:
    text = BESIDE.replace("POSTGRES_HOST: library-db", "POSTGRES_PASSWORD: hunter2")
    with create_defs_folder_sandbox() as sandbox, pytest.raises(ComponentTreeException) as caught:
        loaded(sandbox, shop=text)
    assert isinstance(caught.value.__cause__, SettingsError)
    assert "POSTGRES_PASSWORD in the clear" in str(caught.value.__cause__)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_what_is_declared_in_code_is_read_as_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    declared = declare(
        "shop", {"POSTGRES_PASSWORD_FILE": "password", "TMI_OPS_RPO": "1h", "TMI_OPS_RTO": "2h"}, tmp_path / "x"
    )
    settings = load_settings({}, of=declared)
    assert settings.postgres.password is not None
    assert settings.postgres.password.get_secret_value() == "hunter2"


def test_the_component_says_what_it_takes() -> None:
    model = ProtectedDatabase.get_model_cls()
    assert model is not None
    assert set(model.model_json_schema()["properties"]) == {"name", "settings"}
