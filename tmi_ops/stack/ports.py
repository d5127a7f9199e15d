"""Loopback ports: chosen once, kept as long as they are free."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tmi_ops.errors import StackError
from tmi_ops.private import write_private
from tmi_ops.stack.seaweedfs import SeaweedPorts

LOOPBACK = "127.0.0.1"
# What a person types into a browser; taken only when it is free, like every other port.
FAMILIAR_UI_PORT = 3000
GRPC_OFFSET = 10_000
_HIGHEST_PORT = 65_535
_ATTEMPTS = 200  # a machine on which tests ran for days has thousands of left sockets
# Sockets that SeaweedFS makes beside its ports. One that another user's server left behind, it cannot remove.
_SOCKETS = Path("/tmp")  # noqa: S108 - not ours to choose


class StackPorts(BaseModel):
    """Where each server of the stack listens on 127.0.0.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    postgres: int
    dagster_postgres: int
    valkey: int
    seaweedfs: SeaweedPorts
    ui: int

    def every(self) -> tuple[int, ...]:
        """All of them."""
        return (self.postgres, self.dagster_postgres, self.valkey, self.ui, *self.seaweedfs.http, *self.seaweedfs.grpc)


def stack_ports(record: Path) -> StackPorts:
    """The ports in `record` when all of them are free, else new ones, which are then recorded."""
    recorded = _recorded(record)
    if recorded is not None and all(is_free(port) for port in recorded.every()):
        return recorded
    chosen = choose_ports()
    write_private(record, chosen.model_dump_json(indent=2) + "\n")
    return chosen


def choose_ports() -> StackPorts:
    """Ports nobody listens on now, all different."""
    postgres, dagster_postgres, valkey, ui = free_ports(4)
    return StackPorts(
        postgres=postgres,
        dagster_postgres=dagster_postgres,
        valkey=valkey,
        seaweedfs=seaweed_ports(),
        ui=FAMILIAR_UI_PORT if is_free(FAMILIAR_UI_PORT) else ui,
    )


def seaweed_ports() -> SeaweedPorts:
    """Free ports for SeaweedFS. Its admin role looks for its gRPC twin 10000 higher, whatever it is told."""
    for admin in free_ports(_ATTEMPTS):
        twin = admin + GRPC_OFFSET if admin + GRPC_OFFSET <= _HIGHEST_PORT else admin - GRPC_OFFSET
        if is_free(twin):
            low, high = sorted((admin, twin))
            master, volume, filer, s3, *grpc = free_ports(8)
            ports = SeaweedPorts(http=(master, volume, filer, s3, low), grpc=(grpc[0], grpc[1], grpc[2], grpc[3], high))
            if not any(_has_left_socket(port) for port in (*ports.http, *ports.grpc)):
                return ports
    raise StackError("No pair of free ports for SeaweedFS was found.", hint="try again")


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports nobody listens on now."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT do not count.
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
