"""What is in deploy/, read."""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ENVIRONMENTS = ("development", "staging", "production")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VENV = "/opt/tmi_ops/.venv/bin/"


def documents(name: str) -> list[Any]:
    return [content for content in yaml.safe_load_all((DEPLOY / name).read_text()) if content]


def unit(file: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    return parser


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of a unit, a service or a pod that is one of ours, with where it stands."""
    for file in UNITS:
        yield file.name, shlex.split(unit(file)["Service"]["ExecStart"].removeprefix(VENV))
    for name, service in documents("compose/compose.yaml")[0]["services"].items():
        if "command" in service:
            yield f"compose {name}", service["command"]
        if service["healthcheck"]["test"][1:2] == ["dagster"] if "healthcheck" in service else False:
            yield f"compose {name} healthcheck", service["healthcheck"]["test"][1:]
    for manifest in (*documents("kubernetes/wal-receiver.yaml"), *documents("kubernetes/shadow.yaml")):
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        yield manifest["metadata"]["name"], container["command"]
    for deployment in user_deployments():
        yield f"chart {deployment['name']}", ["dagster", "code-server", "start", *deployment["codeServerArgs"]]


def user_deployments() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = documents("kubernetes/values.yaml")[0]["dagster-user-deployments"]["deployments"]
    return found
