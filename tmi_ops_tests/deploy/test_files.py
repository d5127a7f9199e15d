"""What deploy/ names exists: commands, options, variables, services, Secrets. No engine and no cluster is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
import yaml
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver

from tmi_ops.cli.main import tmi_ops
from tmi_ops.settings import PostgresSettings, RedisSettings, StoreSettings, load_settings
from tmi_ops.settings.purposes import Purpose
from tmi_ops_tests.deploy.files import (
    DEPLOY,
    ENVIRONMENTS,
    ROOT,
    UNITS,
    VENV,
    command_lines,
    documents,
    unit,
    user_deployments,
)
from tmi_ops_tests.test_documented_commands import refusal

PROGRAMS: Mapping[str, click.Command] = {
    "tmi-ops": tmi_ops,
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "tmi-ops-webserver": dagster_webserver,
}
OF_THE_STANDARD_CHAIN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
OF_DAGSTER = {"DAGSTER_HOME", *re.findall(r"env: (DAGSTER_\w+)", (ROOT / "dagster.yaml").read_text())}
COMPOSE = documents("compose/compose.yaml")[0]


def is_read(variable: str) -> bool:
    """Whether our settings read a variable: by its whole name, or as a group's prefix and a field."""
    groups = {"POSTGRES_": PostgresSettings, "REDIS_": RedisSettings, "TMI_OPS_S3_": StoreSettings}
    fields = {
        prefix + {"database": "db"}.get(field, field).upper()
        for prefix, model in groups.items()
        for field in model.model_fields
    }
    fields |= {
        f"TMI_OPS_{purpose.name}_{what}" for purpose in Purpose for what in ("USER", "PASSWORD", "PASSWORD_FILE")
    }
    sources = "".join(file.read_text() for file in (ROOT / "tmi_ops" / "settings").glob("*.py"))
    return variable in fields or f'"{variable}"' in sources


def secret_variables() -> dict[str, set[str]]:
    """The variables that each Secret of the example carries."""
    return {one["metadata"]["name"]: set(one["stringData"]) for one in documents("kubernetes/secrets.example.yaml")}


@pytest.mark.parametrize(
    ("place", "line"), list(command_lines()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_of_a_unit_a_service_or_a_pod_exists(place: str, line: list[str]) -> None:
    program, *words = [word for word in line if not word.startswith("%")]
    assert refusal(" ".join(words), PROGRAMS[program]) is None, place


def test_every_variable_that_is_handed_over_is_one_that_is_read() -> None:
    example = (DEPLOY / "compose" / "environment.env.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    for service in COMPOSE["services"].values():
        if service["image"].startswith("tmi-ops"):
            named |= set(service.get("environment", {}))
    for deployment in user_deployments():
        named |= {entry["name"] for entry in deployment["env"]}
    for name, variables in secret_variables().items():
        named |= variables if name != "tmi-ops-dagster-postgresql" else set()
    for file in UNITS:
        named |= set(re.findall(r"([A-Z_]+)=", unit(file)["Service"].get("Environment", "")))
    assert {"TMI_ENV", "POSTGRES_PASSWORD", "TMI_OPS_ALERT_URLS"} <= named
    assert [name for name in sorted(named - OF_THE_STANDARD_CHAIN - OF_DAGSTER) if not is_read(name)] == []


def test_the_example_of_an_environments_variables_is_accepted_by_the_settings(tmp_path: Path) -> None:
    shutil.copyfile(DEPLOY / "compose" / "environment.env.example", tmp_path / ".env.production")
    assert load_settings({"TMI_ENV": "production"}, tmp_path).postgres.sslmode == "require"


def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    """By its own program where there is one; else they are at least well formed and begin something."""
    for file in UNITS:
        assert {"Unit", "Service", "Install"} == set(unit(file).sections())
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in UNITS:
        text = re.sub(rf"{VENV}\S+", str(program), file.read_text())
        (tmp_path / file.name.replace("@", "@production")).write_text(text)
    units = sorted(map(str, tmp_path.glob("*.service")))
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_unit_of_an_environment_runs_as_its_user_and_may_write_to_its_own_state_alone() -> None:
    for file in UNITS:
        service = unit(file)["Service"]
        assert (service["NoNewPrivileges"], service["ProtectSystem"], service["ProtectHome"]) == (
            "yes",
            "strict",
            "yes",
        )
        if "@" in file.name:
            assert service["User"] == "tmi-ops-%i"
            assert service["StateDirectory"] == "tmi-ops-%i"
            assert service["WorkingDirectory"] == "/etc/tmi-ops/%i"


def test_compose_refers_only_to_what_is_there_and_each_environments_secrets_reach_its_own_services() -> None:
    services = COMPOSE["services"]
    locations = {
        entry["grpc_server"]["location_name"]: entry["grpc_server"]
        for entry in documents("compose/workspace.yaml")[0]["load_from"]
    }
    assert set(locations) == set(ENVIRONMENTS)
    for name, server in locations.items():
        command = services[server["host"]]["command"]
        assert str(server["port"]) == command[command.index("--port") + 1]
        assert services[server["host"]]["environment"]["TMI_ENV"] == name
    for name, service in services.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
        assert named <= set(COMPOSE["volumes"])
        environment = name.partition("-")[2]
        assert service.get("env_file", []) == ([f"{environment}.env"] if environment in ENVIRONMENTS else [])
        if name.startswith("wal-"):
            assert service["networks"] == [environment], "a receiver is out of the code servers' reach"


def test_no_code_server_reaches_another_environments() -> None:
    """Whoever reaches a code server may start runs in it."""
    reached = {
        name: set(service["networks"])
        for name, service in COMPOSE["services"].items()
        if name.startswith(("code-", "wal-", "shadow-"))
    }
    for one, networks in reached.items():
        for other, others in reached.items():
            assert one.partition("-")[2] == other.partition("-")[2] or not networks & others, (one, other)
    for name in ENVIRONMENTS:
        assert COMPOSE["networks"][f"dagster-{name}"]["internal"] is True


def test_the_image_is_made_of_files_that_are_there_and_of_no_secret() -> None:
    ignored = (DEPLOY / "compose" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for source in re.findall(
        r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", (DEPLOY / "compose" / "Dockerfile").read_text(), re.M
    ):
        for word in source.split():
            assert (ROOT / word).exists()
            assert word in allowed
    examples = [name for name in allowed if ".env" in name]
    assert examples == []


def test_the_wal_receivers_and_the_chart_refer_to_secrets_that_have_a_shape() -> None:
    known = set(secret_variables())
    for deployment, manifest in zip(user_deployments(), documents("kubernetes/wal-receiver.yaml"), strict=True):
        name = f"tmi-ops-{deployment['name']}"
        assert [one["name"] for one in deployment["envSecrets"]] == [name]
        pod = manifest["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        assert [one["secretRef"]["name"] for one in container["envFrom"]] == [name]
        assert {"name": "TMI_ENV", "value": deployment["name"]} in container["env"]
        assert manifest["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
        assert name in known
    assert documents("kubernetes/values.yaml")[0]["global"]["postgresqlSecretName"] in known


def test_the_shadow_in_pods_refers_to_what_is_there() -> None:
    (manifest,) = documents("kubernetes/shadow.yaml")
    pod, claims = manifest["spec"]["template"], manifest["spec"]["volumeClaimTemplates"]
    (container,) = pod["spec"]["containers"]
    assert [one["secretRef"]["name"] for one in container["envFrom"]] == ["tmi-ops-production"]
    assert "tmi-ops-production" in secret_variables()
    assert manifest["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    volumes = {one["name"] for one in pod["spec"]["volumes"]} | {one["metadata"]["name"] for one in claims}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_commented_fleet_in_the_default_workspace_is_the_one_in_deploy() -> None:
    text = (ROOT / "workspace.yaml").read_text()
    commented = text.partition("#\n")[2].replace("# ", "", 1).replace("\n# ", "\n")
    assert yaml.safe_load(commented) == documents("fleet/workspace.yaml")[0]


def test_kubernetes_values_become_an_instance_and_run_pods_that_dagster_accepts(
    database: PostgresSettings, tmp_path: Path
) -> None:
    """As the chart renders them, in a process of its own: the instance remembers what its first configuration was."""
    program = Path(__file__).with_name("kubernetes_instance.py")
    assert database.password is not None
    done = subprocess.run(
        [sys.executable, program, tmp_path],
        env={
            **os.environ,
            "DAGSTER_PG_HOST": database.host,
            "DAGSTER_PG_PORT": str(database.port),
            "DAGSTER_PG_USERNAME": database.user,
            "DAGSTER_PG_PASSWORD": database.password.get_secret_value(),
            "DAGSTER_PG_DB": database.database,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*ENVIRONMENTS]
