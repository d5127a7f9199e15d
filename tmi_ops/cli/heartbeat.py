"""`tmi-ops heartbeat`."""

from __future__ import annotations

import signal
import threading

import click

from tmi_ops.cli.environment import logs_in_for, reporting
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose


@logs_in_for(Purpose.HEARTBEAT)
@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.1, 86400),
    metavar="SECONDS",
    help="Go on and write one every so many seconds, until SIGTERM or Ctrl-C. A minute (60) is usual.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def heartbeat(every: float | None, quiet: bool) -> int:
    """Write a beat into the database: a row, in a schema of our own, that carries the hash of the one before.

    After a recovery the chain proves that nothing before the target is missing and nothing after it present. The table
    is tmi_ops.heartbeat; it is made where there is none, and keeps the beats of 35 days.
    """
    from tmi_ops.drill.heartbeat import beat, keep_beating
    from tmi_ops.settings import load_settings

    postgres = load_settings(purpose=Purpose.HEARTBEAT).postgres
    if every is None:
        out.print(f"Written: {beat(postgres).words()}, hash chained to the one before.")
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: stop.set())
    with reporting(quiet) as report:
        written = keep_beating(postgres, every, stop, report)
    out.print(f"Stopped. {written} {'beat was' if written == 1 else 'beats were'} written.")
    return 0
