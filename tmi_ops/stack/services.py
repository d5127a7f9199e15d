"""The servers of the stack: name, address, and how each is started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tmi_ops.postgres.programs import Programs
from tmi_ops.stack import orchestrator, postgresql
from tmi_ops.stack.bucket import ensure_bucket
from tmi_ops.stack.credentials import StackCredentials
from tmi_ops.stack.environment import BUCKET, REGION, dagster_variables
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.ports import LOOPBACK, StackPorts
from tmi_ops.stack.seaweedfs import start_seaweedfs
from tmi_ops.stack.valkey import start_valkey

POSTGRES = "postgres"
DAGSTER_POSTGRES = "dagster-postgres"
SEAWEEDFS = "seaweedfs"
VALKEY = "valkey"
CODE = "dagster-code"
WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"


class Running(Protocol):
    """A server that was started; `stop` shuts it down cleanly."""

    process: subprocess.Popen[bytes]

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Service:
    """One server of the stack. `start` returns when it answers."""

    name: str
    purpose: str
    address: str
    log: Path
    start: Callable[[], Running]


@dataclass(frozen=True)
class StackContext:
    """What the servers of a stack share.

    `inherit`: descriptors that each server keeps open; `stopping`: True once a stop was requested, which ends waiting
    for a start; `code`: the socket of Dagster's code server, None without Dagster.
    """

    layout: StackLayout
    programs: Programs
    ports: StackPorts
    credentials: StackCredentials
    inherit: tuple[int, ...]
    stopping: Callable[[], bool]
    code: Path | None = None


def servers(context: StackContext) -> tuple[Service, ...]:
    """The servers that need no other and start in parallel."""
    return (_postgres(context), _seaweedfs(context), _valkey(context))


def dagster_records(context: StackContext) -> Service:
    """The PostgreSQL server of Dagster's database."""
    layout, ports = context.layout, context.ports
    address = postgresql.dagster_address(ports.dagster_postgres, context.credentials.dagster_postgres)

    def start() -> Running:
        cluster = postgresql.start_stack_cluster(
            context.programs,
            layout.data(DAGSTER_POSTGRES),
            address,
            parameters=postgresql.DAGSTER_PARAMETERS,
            log=layout.log(DAGSTER_POSTGRES),
            inherit=context.inherit,
        )
        return _or_stopped(cluster, lambda: postgresql.ensure_database(address))

    return Service(
        DAGSTER_POSTGRES,
        "Dagster's database",
        f"{LOOPBACK}:{address.port}/{address.database}",
        layout.log(DAGSTER_POSTGRES),
        start,
    )


def dagster_code(context: StackContext, code: Path) -> Service:
    """Dagster's code server, which needs `dagster_records`: runs are its children, and end before that does."""
    layout = context.layout
    variables = dagster_variables(layout, context.ports, context.credentials)
    return Service(
        CODE,
        "loads definitions, runs jobs",
        str(code),
        layout.log(CODE),
        lambda: orchestrator.start_code_server(
            code, variables, layout.log(CODE), stopping=context.stopping, inherit=context.inherit
        ),
    )


def dagster_processes(context: StackContext) -> tuple[Service, ...]:
    """Dagster's UI and daemon, which need `dagster_records` and `dagster_code`."""
    layout, ports = context.layout, context.ports
    variables = dagster_variables(layout, ports, context.credentials)
    records = postgresql.dagster_address(ports.dagster_postgres, context.credentials.dagster_postgres)
    return (
        Service(
            WEBSERVER,
            "Dagster's UI",
            f"http://{LOOPBACK}:{ports.ui}",
            layout.log(WEBSERVER),
            lambda: orchestrator.start_webserver(
                ports.ui, variables, layout.log(WEBSERVER), stopping=context.stopping, inherit=context.inherit
            ),
        ),
        Service(
            DAEMON,
            "schedules, sensors, run queue",
            "",
            layout.log(DAEMON),
            lambda: orchestrator.start_daemon(
                records, variables, layout.log(DAEMON), stopping=context.stopping, inherit=context.inherit
            ),
        ),
    )


def _postgres(context: StackContext) -> Service:
    layout = context.layout
    address = postgresql.tmi_address(context.ports.postgres, context.credentials.postgres)
    return Service(
        POSTGRES,
        "TMI's database",
        f"{LOOPBACK}:{address.port}/{address.database}",
        layout.log(POSTGRES),
        lambda: postgresql.start_stack_cluster(
            context.programs,
            layout.data(POSTGRES),
            address,
            parameters=postgresql.TMI_PARAMETERS,
            log=layout.log(POSTGRES),
            inherit=context.inherit,
        ),
    )


def _seaweedfs(context: StackContext) -> Service:
    layout, ports = context.layout, context.ports
    endpoint_url = f"http://{LOOPBACK}:{ports.seaweedfs.s3}"

    def start() -> Running:
        service = start_seaweedfs(
            layout.data(SEAWEEDFS),
            ports.seaweedfs,
            context.credentials.s3,
            layout.log(SEAWEEDFS),
            inherit=context.inherit,
        )
        return _or_stopped(service, lambda: ensure_bucket(endpoint_url, REGION, BUCKET, context.credentials.s3))

    return Service(SEAWEEDFS, "S3 store of the backups", endpoint_url, layout.log(SEAWEEDFS), start)


def _valkey(context: StackContext) -> Service:
    layout, ports = context.layout, context.ports
    return Service(
        VALKEY,
        "TMI's cache",
        f"redis://{LOOPBACK}:{ports.valkey}",
        layout.log(VALKEY),
        lambda: start_valkey(
            layout.data(VALKEY),
            ports.valkey,
            context.credentials.valkey,
            layout.log(VALKEY),
            inherit=context.inherit,
        ),
    )


def _or_stopped(running: Running, finish: Callable[[], None]) -> Running:
    """`running` after `finish`; stopped if that fails."""
    try:
        finish()
    except BaseException:
        running.stop()
        raise
    return running
