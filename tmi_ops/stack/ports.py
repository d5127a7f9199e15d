"""Loopback ports: chosen once, and kept while they are free."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tmi_ops.errors import StackError
from tmi_ops.private import write_private
from tmi_ops.stack.seaweedfs import SeaweedPorts

LOOPBACK = "127.0.0.1"
# Easy to remember; used only if it is free.
FAMILIAR_UI_PORT = 3000
GRPC_OFFSET = 10_000
_HIGHEST_PORT = 65_535
_ATTEMPTS = 200  # a machine on which tests ran for days has thousands of stale sockets
# SeaweedFS creates a socket for each port. It cannot remove a stale one of another user.
_SOCKETS = Path("/tmp")  # noqa: S108 - not ours to choose


class StackPorts(BaseModel):
    """The ports of the stack's servers on 127.0.0.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    postgres: int
    dagster_postgres: int
    valkey: int
    seaweedfs: SeaweedPorts
    ui: int

    def every(self) -> tuple[int, ...]:
        """All ports."""
        return (self.postgres, self.dagster_postgres, self.valkey, self.ui, *self.seaweedfs.http, *self.seaweedfs.grpc)


def stack_ports(record: Path) -> StackPorts:
    """The ports in `record` if all of them are free, else new ones, which are recorded."""
    recorded = _recorded(record)
    if recorded is not None and all(is_free(port) for port in recorded.every()):
        return recorded
    chosen = choose_ports()
    write_private(record, chosen.model_dump_json(indent=2) + "\n")
    return chosen


def choose_ports() -> StackPorts:
    """Ports that are free now, all different."""
    postgres, dagster_postgres, valkey, ui = free_ports(4)
    return StackPorts(
        postgres=postgres,
        dagster_postgres=dagster_postgres,
        valkey=valkey,
        seaweedfs=seaweed_ports(),
        ui=FAMILIAR_UI_PORT if is_free(FAMILIAR_UI_PORT) else ui,
    )


def seaweed_ports() -> SeaweedPorts:
    """Free ports for SeaweedFS. Its admin role always expects its gRPC port 10000 above its HTTP port."""
    for admin in free_ports(_ATTEMPTS):
        twin = admin + GRPC_OFFSET if admin + GRPC_OFFSET <= _HIGHEST_PORT else admin - GRPC_OFFSET
        if is_free(twin):
            low, high = sorted((admin, twin))
            master, volume, filer, s3, *grpc = free_ports(8)
            ports = SeaweedPorts(http=(master, volume, filer, s3, low), grpc=(grpc[0], grpc[1], grpc[2], grpc[3], high))
            if not any(_has_left_socket(port) for port in (*ports.http, *ports.grpc)):
                return ports
    raise StackError("No pair of free ports was found for SeaweedFS.", hint="try again")


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that are free now."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _has_left_socket(port: int) -> bool:
    return any(_SOCKETS.glob(f"seaweedfs-*-{port}.sock"))


def _recorded(record: Path) -> StackPorts | None:
    try:
        return StackPorts.model_validate_json(record.read_text())
    except (FileNotFoundError, ValidationError):
        return None
