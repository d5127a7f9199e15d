"""The application's connection to the recovered database: as variables, an .env file, or a Kubernetes Secret.

The password is only in files that only their owner can read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import SecretStr

from tmi_ops.private import write_durably, write_private
from tmi_ops.settings import PostgresSettings
from tmi_ops.settings.env_file import with_values

MODE = 0o600


@dataclass(frozen=True)
class SecretManifest:
    """The manifest's file, and the name of the Secret."""

    file: Path
    name: str
    namespace: str | None = None


def connection_variables(postgres: PostgresSettings) -> dict[str, str]:
    """The guide's variables and TMI's own URL. Contains the password."""
    password = postgres.password.get_secret_value() if postgres.password else ""
    user, database = quote(postgres.user, safe=""), quote(postgres.database, safe="")
    return {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": password,
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
        "TMI_DATABASE_URL": f"postgresql://{user}:{quote(password, safe='')}@{postgres.host}:{postgres.port}/{database}"
        f"?sslmode={postgres.sslmode}",
    }


def read_connection(file: Path) -> PostgresSettings | None:
    """Read an .env file of ours; None if there is none."""
    if not file.exists():
        return None
    values = dotenv_values(file)
    return PostgresSettings(
        host=values["POSTGRES_HOST"] or "",
        port=int(values["POSTGRES_PORT"] or 0),
        user=values["POSTGRES_USER"] or "",
        password=SecretStr(values["POSTGRES_PASSWORD"] or ""),
        database=values["POSTGRES_DB"] or "",
        sslmode=values["POSTGRES_SSLMODE"],
    )


def write_env_file(file: Path, variables: Mapping[str, str]) -> None:
    """Set these variables in an .env file; its other lines stay."""
    write_private(file, with_values(file.read_text() if file.exists() else "", variables))


def write_secret(manifest: SecretManifest, variables: Mapping[str, str]) -> None:
    """Write a manifest for `kubectl apply -f`, as JSON, which is valid YAML."""
    metadata = {"name": manifest.name, **({"namespace": manifest.namespace} if manifest.namespace else {})}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "stringData": dict(variables),
    }
    write_durably(manifest.file, json.dumps(secret, indent=2).encode() + b"\n", MODE)
