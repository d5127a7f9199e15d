"""`tmi-ops heartbeat`."""

from __future__ import annotations

import signal
import threading

import click

from tmi_ops.cli.environment import logs_in_for, reporting
from tmi_ops.cli.options import quiet_option
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.HEARTBEAT)
@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.1, 86400),
    metavar="SECONDS",
    help="Write one every SECONDS until SIGTERM or Ctrl-C. 60 is usual.",
)
@quiet_option
def heartbeat(every: float | None, quiet: bool) -> int:
    """Write a heartbeat into the database: a row that contains the hash of the row before it.

    After a recovery, this chain shows that no commit before the target is missing and none after it is present. The
    table is tmi_ops.heartbeat; it is created if it is missing, and keeps heartbeats for 35 days.
    """
    from tmi_ops.drill.heartbeat import beat, write_heartbeats
    from tmi_ops.settings import load_settings

    postgres = load_settings(purpose=Purpose.HEARTBEAT).postgres
    if every is None:
        out.print(f"Written: {beat(postgres).describe()}, chained to the one before by its hash.")
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: stop.set())
    with reporting(quiet) as report:
        written = write_heartbeats(postgres, every, stop, report)
    out.print(f"Stopped. {written} {'heartbeat was' if written == 1 else 'heartbeats were'} written.")
    return 0
