"""`tmi-ops metrics`: the status as metrics: printed, in a file for node_exporter, or served."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for
from tmi_ops.cli.status import look
from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from tmi_ops.objectives.status import Status

# Scrapes within this time share one reading.
FRESH_FOR_S = 10.0
COULD_NOT_LOOK = 2


@logs_in_for(Purpose.MONITOR)
@click.command()
@click.option(
    "--textfile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the metrics atomically to FILE (*.prom), for node_exporter's textfile collector.",
)
@click.option(
    "--http", metavar="[HOST:]PORT", help="Serve the metrics at /metrics until stopped. Default host: 127.0.0.1."
)
@click.option("--record", is_flag=True, help="Also keep each reading in the store. Use it only without Dagster.")
def metrics(textfile: Path | None, http: str | None, record: bool) -> int:
    """Export RPO, RTO, WAL stream, verification and storage as metrics. Default: OpenMetrics on standard output.

    deploy/grafana has a dashboard for them. Exit codes: 0 exported, 2 the store could not be read; what is known is
    exported, with tmi_ops_reachable 0.
    """
    if textfile is not None and http is not None:
        raise click.UsageError("--textfile and --http exclude each other.")
    if http is not None:
        return _serve(*_address(http), record=record)
    found = _looked(record=record)
    if textfile is not None:
        _write(textfile, found)
    else:
        from prometheus_client.openmetrics.exposition import generate_latest

        shown: bytes = generate_latest(_registry(lambda: found))  # type: ignore[no-untyped-call]
        click.echo(shown.decode(), nl=False)
    return 0 if found.recoverability is not None else COULD_NOT_LOOK


class StatusCollector:
    """Reads the status for each scrape, at most every `fresh_for_s` seconds. Thread-safe."""

    def __init__(self, look_now: Callable[[], Status], fresh_for_s: float = 0.0) -> None:
        self._look = look_now
        self._fresh_for = fresh_for_s
        self._turn = threading.Lock()
        self._found: Status | None = None
        self._looked_at = 0.0

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client."""
        from tmi_ops.objectives.metrics import families

        with self._turn:
            if self._found is None or time.monotonic() - self._looked_at >= self._fresh_for:
                self._found, self._looked_at = self._look(), time.monotonic()
            found = self._found
        return list(families(found))


def _looked(*, record: bool) -> Status:
    found = look()
    if record and found.recoverability is not None:
        from tmi_ops.cli.environment import open_environment
        from tmi_ops.objectives.history import record_reading

        settings, store = open_environment()
        try:
            record_reading(store, found.recoverability.facts, settings.objectives.rpo)
        except OpsError as error:
            click.echo(f"The reading could not be kept: {error}", err=True)
    return found


def _registry(look_now: Callable[[], Status], fresh_for_s: float = 0.0) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(look_now, fresh_for_s))
    return registry


def _write(file: Path, found: Status) -> None:
    from prometheus_client import write_to_textfile

    if not file.parent.is_dir():
        raise click.UsageError(f"The directory {file.parent} does not exist.")
    write_to_textfile(str(file), _registry(lambda: found))


def _serve(host: str, port: int, *, record: bool) -> int:
    from prometheus_client import start_http_server

    look()  # so that wrong settings fail at once
    registry = _registry(lambda: _looked(record=record), FRESH_FOR_S)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise OpsError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            hint="choose another port, or find the process that uses it with `ss -ltnp`",
            code=Code.PORT_IN_USE if error.errno == errno.EADDRINUSE else None,
        ) from None
    click.echo(f"Metrics at http://{host}:{port}/metrics; stop with Ctrl-C.", err=True)
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
        server.server_close()
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise click.UsageError(f"{text!r} is not [HOST:]PORT, such as 9187, 0.0.0.0:9187 or [::1]:9187.")
    return host.strip("[]") or "127.0.0.1", int(port)
