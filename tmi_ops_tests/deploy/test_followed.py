"""deploy/README.md, followed as far as this machine goes. `access/test_by_the_book` follows docs/production.md."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tmi_ops.settings import load_settings
from tmi_ops_tests.deploy.files import DEPLOY, ENVIRONMENTS, ROOT
from tmi_ops_tests.following import NOT_HERE, Reader, commands_of, section

PAGE = (DEPLOY / "README.md").read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copytree(DEPLOY, tmp_path / "deploy", symlinks=True)
    return tmp_path


def follow(title: str, clone: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    left_out: list[str] = []
    reader = Reader(
        clone, {"PATH": os.environ["PATH"]}, {}, dict.fromkeys(NOT_HERE, left_out.append), sql=refuse, hba=refuse
    )
    reader.follow(section(PAGE, title))
    assert left_out


def test_compose_is_set_up_with_an_environment_file_for_each_that_only_its_owner_reads(clone: Path) -> None:
    follow("Docker Compose", clone)
    compose = clone / "deploy" / "compose"
    for environment in ENVIRONMENTS:
        file = compose / f"{environment}.env"
        assert file.stat().st_mode & 0o777 == 0o600
        file.rename(compose / f".env.{environment}")
    assert (compose / "secrets").stat().st_mode & 0o777 == 0o700
    assert load_settings({"TMI_ENV": "production"}, compose).postgres.user == "tmi_backup"


def test_kubernetes_needs_nothing_but_its_own_programs(clone: Path) -> None:
    follow("Kubernetes", clone)


def test_what_cannot_run_here_is_still_on_a_page() -> None:
    printed = [line for page in (PAGE, (ROOT / "docs" / "production.md").read_text()) for line in commands_of(page)]
    programs = {word for command in printed for word in command.split()}
    assert [name for name in NOT_HERE if name not in programs] == []
