"""The environment variables that point to the stack."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from tmi_ops.stack.credentials import StackCredentials
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.ports import LOOPBACK, StackPorts
from tmi_ops.stack.postgresql import DAGSTER_DATABASE, DAGSTER_USER, TMI_DATABASE, TMI_USER

# The stack is for development only; other environments never read its settings.
ENVIRONMENT = "development"
BUCKET = "tmi-backups"
PREFIX = "tmi-ops"
REGION = "us-east-1"


def settings_variables(ports: StackPorts, credentials: StackCredentials) -> dict[str, str]:
    """The contents of `stack.env`: TMI's database, its cache and the store."""
    return {
        "POSTGRES_HOST": LOOPBACK,
        "POSTGRES_PORT": str(ports.postgres),
        "POSTGRES_USER": TMI_USER,
        "POSTGRES_PASSWORD": credentials.postgres.get_secret_value(),
        "POSTGRES_DB": TMI_DATABASE,
        "POSTGRES_SSLMODE": "disable",
        "REDIS_HOST": LOOPBACK,
        "REDIS_PORT": str(ports.valkey),
        "REDIS_PASSWORD": credentials.valkey.get_secret_value(),
        "REDIS_DB": "0",
        "TMI_OPS_S3_ENDPOINT_URL": f"http://{LOOPBACK}:{ports.seaweedfs.s3}",
        "TMI_OPS_S3_BUCKET": BUCKET,
        "TMI_OPS_S3_PREFIX": PREFIX,
        "TMI_OPS_S3_REGION": REGION,
        "TMI_OPS_S3_ACCESS_KEY_ID": credentials.s3_access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": credentials.s3_secret_access_key.get_secret_value(),
    }


def dagster_variables(layout: StackLayout, ports: StackPorts, credentials: StackCredentials) -> dict[str, str]:
    """The variables that `dagster`, dagster.yaml and workspace.yaml need."""
    return {
        "TMI_ENV": ENVIRONMENT,
        "TMI_OPS_HOME": str(layout.home),
        "DAGSTER_HOME": str(layout.dagster_home),
        "DAGSTER_PG_HOST": LOOPBACK,
        "DAGSTER_PG_PORT": str(ports.dagster_postgres),
        "DAGSTER_PG_USERNAME": DAGSTER_USER,
        "DAGSTER_PG_PASSWORD": credentials.dagster_postgres.get_secret_value(),
        "DAGSTER_PG_DB": DAGSTER_DATABASE,
    }


def as_env_file(variables: Mapping[str, str]) -> str:
    """Lines `NAME=value`; our values need no quoting."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def as_shell_exports(variables: Mapping[str, str]) -> str:
    """Lines for `eval` in a POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
