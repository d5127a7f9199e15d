"""The stack's secrets: generated once, kept in a 0600 file."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.errors import StackError
from tmi_ops.private import write_private
from tmi_ops.stack.seaweedfs import S3Credentials

_SECRET_BYTES = 24


@dataclass(frozen=True)
class StackCredentials:
    """One secret for each server."""

    postgres: SecretStr
    dagster_postgres: SecretStr
    valkey: SecretStr
    s3_access_key_id: SecretStr
    s3_secret_access_key: SecretStr

    @property
    def s3(self) -> S3Credentials:
        return S3Credentials(self.s3_access_key_id.get_secret_value(), self.s3_secret_access_key)


def stack_credentials(file: Path) -> StackCredentials:
    """The secrets in `file`, generated if it does not exist.

    Raises:
        StackError: the file is damaged. New secrets would not match the existing databases.
    """
    names = tuple(StackCredentials.__dataclass_fields__)
    if not file.exists():
        write_private(file, json.dumps({name: secrets.token_hex(_SECRET_BYTES) for name in names}, indent=2) + "\n")
    try:
        stored = json.loads(file.read_text())
        return StackCredentials(**{name: SecretStr(str(stored[name])) for name in names})
    except (ValueError, KeyError, TypeError):
        raise StackError(
            f"{file} is damaged and no longer contains the stack's passwords.",
            hint="restore it from a copy, or destroy the stack's data with `tmi-ops stack reset`",
        ) from None
