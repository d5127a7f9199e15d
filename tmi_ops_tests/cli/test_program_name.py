"""What is printed to be typed works as printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tmi_ops.cli.printed_commands import program_name


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command in an environment that nobody activated, called from the directory above it."""
    program = tmp_path / "a clone" / ".venv" / "bin" / "tmi-ops"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.chdir(tmp_path / "a clone")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return program


def test_where_the_shell_does_not_find_it_the_path_from_here_is_named(program: Path) -> None:
    assert program_name() == ".venv/bin/tmi-ops"


def test_from_elsewhere_the_whole_path_is_named_quoted_for_a_shell(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.chdir(program.parents[3])
    assert program_name() == "'a clone/.venv/bin/tmi-ops'"
    (program.parents[3] / "other").mkdir()
    monkeypatch.chdir(program.parents[3] / "other")
    assert program_name() == f"'{program}'"


def test_where_the_shell_finds_this_program_its_name_is_enough(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_name() == "tmi-ops"


def test_another_program_of_that_name_on_path_is_not_taken_for_this_one(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmi-ops").write_text("#!/bin/sh\n")
    (tmp_path / "tmi-ops").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_name() == ".venv/bin/tmi-ops"
