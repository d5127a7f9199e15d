"""Makes of deploy/kubernetes/values.yaml what Dagster's chart makes of it, and has Dagster read it. Run by a test.

Prints the environments whose run pods were described.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext

from tmi_ops_tests.deploy.files import ROOT, documents, user_deployments

VALUES = documents("kubernetes/values.yaml")[0]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def snaked(content: Any) -> Any:
    return {snake(name): snaked(value) for name, value in content.items()} if isinstance(content, dict) else content


def launcher_config() -> dict[str, Any]:
    """What the chart adds is its own: names of objects that it makes itself."""
    return {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        **snaked(VALUES["runLauncher"]["config"]["k8sRunLauncher"]),
    }


def instance_config() -> dict[str, Any]:
    daemon = VALUES["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    limits = [
        {**limit, "value": limit["value"]}  # its keys are camel case in the instance too
        for limit in queue["tagConcurrencyLimits"]
    ]
    return {
        "storage": yaml.safe_load((ROOT / "dagster.yaml").read_text())["storage"],
        "run_launcher": {"module": "dagster_k8s", "class": VALUES["runLauncher"]["type"], "config": launcher_config()},
        "concurrency": {
            "runs": {"max_concurrent_runs": queue["maxConcurrentRuns"], "tag_concurrency_limits": limits},
            **snaked(VALUES["concurrency"]),
        },
        "run_monitoring": snaked(daemon["runMonitoring"]),
        "run_retries": snaked(daemon["runRetries"]),
        "sensors": snaked(daemon["sensors"]),
        "schedules": snaked(daemon["schedules"]),
        "retention": {name: snaked(VALUES["retention"][name]) for name in ("schedule", "sensor")},
        "telemetry": VALUES["telemetry"],
    }


def main(home: Path) -> None:
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance_config()))
    with DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
    processed = process_config(K8sRunLauncher.config_type(), launcher_config())
    assert processed.success, processed.errors
    for deployment in user_deployments():
        pods = {
            "env_secrets": [one["name"] for one in deployment["envSecrets"]],
            "env": deployment["env"],
            "volumes": deployment["volumes"],
            "volume_mounts": deployment["volumeMounts"],
            "resources": deployment["resources"],
            "security_context": deployment["securityContext"],
        }
        context = K8sContainerContext.create_from_config({"k8s": pods})
        container = context.run_k8s_config.container_config
        assert {"secret_ref": {"name": f"tmi-ops-{deployment['name']}"}} in container["env_from"]
        assert container["security_context"]["run_as_non_root"] is True
        print(deployment["name"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
