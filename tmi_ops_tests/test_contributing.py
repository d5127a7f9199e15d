"""CONTRIBUTING.md says where things are; these tests keep its answers true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tmi_ops.cli.main import SECTIONS
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.diagnose import CHAIN
from tmi_ops.health.probe import Probe
from tmi_ops.health.registry import PROBES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
VERSIONS = "tmi_ops/postgres/versions.py"
MODULES = sorted((ROOT / "tmi_ops").rglob("*.py"))


def modules_with(pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in MODULES if re.search(pattern, path.read_text(), re.MULTILINE)}


def values_of(folder: str, kind: type) -> dict[str, object]:
    """Instances of a kind that the modules of a folder define at their top, by name."""
    found: dict[str, object] = {}
    for path in sorted((ROOT / folder).glob("*.py")):
        module = __import__(".".join(path.relative_to(ROOT).with_suffix("").parts), fromlist=["*"])
        found |= {name: value for name, value in vars(module).items() if isinstance(value, kind)}
    return found


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tmi_ops|tmi_ops_tests|docs)/[\w./]*|\w+\.md)`", PAGE))))
def test_every_path_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_page_names_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "tmi_ops").glob("*/__init__.py")}
    alone = {path.name for path in (ROOT / "tmi_ops").glob("*.py")} - {"__init__.py", "definitions.py", "components.py"}
    table = PAGE.partition("## The house")[2].partition("\n## ")[0]
    assert rooms - set(re.findall(r"`(\w+)/`", table)) == set()
    assert alone - {"command_texts.py"} - set(re.findall(r"`(\w+\.py)`", table)) == set()


def test_every_probe_of_the_folder_is_in_the_registry() -> None:
    assert {id(value) for value in values_of("tmi_ops/health/probes", Probe).values()} == {id(one) for one in PROBES}


def test_every_link_of_the_doctor_is_in_the_chain() -> None:
    assert {id(one) for one in values_of("tmi_ops/diagnosis", Link).values()} <= {id(link) for link in CHAIN}


def test_every_command_is_a_module_of_the_folder() -> None:
    for section in SECTIONS.values():
        for command in section.values():
            path = ROOT / (command.module.replace(".", "/") + ".py")
            assert path.parent == ROOT / "tmi_ops/cli"
            assert re.search(rf"^def {command.attribute}\(", path.read_text(), re.MULTILINE), command


@pytest.mark.parametrize(
    ("pattern", "owner"),
    [
        (r"needs-retry\.s3", "tmi_ops/store/s3/client.py"),
        (r"^def coverage\(", "tmi_ops/wal/coverage.py"),
        (r"^class Manifest\(", "tmi_ops/store/manifest.py"),
        (r"^def judge_rpo\(", "tmi_ops/objectives/rpo.py"),
        (r"^def plan_retention\(", "tmi_ops/retention/planning.py"),
        (r"signal\.signal\(signal\.SIGTERM, _as_interrupt\)", "tmi_ops/cli/main.py"),
        (r"^OLDEST, NEWEST = ", "tmi_ops/postgres/versions.py"),
    ],
)
def test_each_decision_has_one_owner(pattern: str, owner: str) -> None:
    assert modules_with(pattern) == {owner}


def test_only_the_back_end_for_s3_knows_boto() -> None:
    knowing = modules_with(r"^\s*(?:import|from) (?:boto3|botocore|mypy_boto3_s3)\b")
    assert {str(Path(path).parent) for path in knowing} == {"tmi_ops/store/s3"}


def test_versions_of_postgresql_are_compared_with_names() -> None:
    """A bare number says neither what came with it nor where else it counts."""
    bare = r"\bmajor (?:<|>|<=|>=|==) \d|\b1[3-9]0_?000\b|^[A-Z_]*(?:SINCE|MAJOR)[A-Z_]* = \d"
    assert modules_with(bare) - {VERSIONS} == set()


def test_every_feature_of_a_version_is_used() -> None:
    named = set(re.findall(r"^([A-Z][A-Z_]+) = \d+", (ROOT / VERSIONS).read_text(), re.MULTILINE))
    assert len(named) > 15
    assert {name for name in named if not modules_with(rf"\b{name}\b") - {VERSIONS}} == set()
