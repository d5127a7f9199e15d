"""`tmi-ops wal stream` and `tmi-ops wal status`."""

from __future__ import annotations

import signal
import threading
from datetime import UTC
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import quiet_option, slot_option
from tmi_ops.cli.terminal import err, format_age, format_size, out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore
    from tmi_ops.wal.receiver import ReceivedWal


@logs_in_for(Purpose.RECEIVER)
@click.command()
@slot_option
@click.option(
    "--partial-every",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to store the current, incomplete segment. This is the RPO of a busy server.",
)
@click.option("--catch-up", is_flag=True, help="Stop when the archive reaches the server's present LSN.")
@click.option("--wait", is_flag=True, help="Wait while another receiver is running, and take over when it stops.")
@click.option(
    "--accept-gap",
    is_flag=True,
    help="Continue although WAL between the end of the archive and the slot is lost. Take a base backup afterwards.",
)
@quiet_option
def stream(slot: str | None, partial_every: float, catch_up: bool, wait: bool, accept_gap: bool, quiet: bool) -> int:
    """Receive the server's WAL into the store, continuously.

    A replication slot makes the server keep WAL until it is stored; the slot is created if it is missing. You can stop
    or kill this command at any time: it continues from what is stored. SIGTERM and Ctrl-C stop it cleanly.
    """
    stop = stop_on_signals()
    from tmi_ops.settings import load_settings
    from tmi_ops.wal.receiver import StreamOptions, await_store, catch_up_wal, stream_wal

    settings = load_settings(purpose=Purpose.RECEIVER)
    options = StreamOptions(slot, partial_every, accept_gap, wait)
    with reporting(quiet) as report:
        store = open_environment()[1] if catch_up else await_store(settings, report, stop)
        receive = catch_up_wal if catch_up else stream_wal
        received = None if store is None else receive(settings, store, report, options, stop)
    if store is None or received is None:
        err.print("Stopped before any WAL was received.")
        return 0
    _show(received)
    if catch_up:
        _tell_the_monitor(settings, store)
    return 0


@logs_in_for(Purpose.RECEIVER)
@click.command()
@slot_option
def status(slot: str | None) -> int:
    """Show which receiver is running, how far the archive reaches, and how much WAL the slot retains on the server.

    Exit codes: 0 all is well, 1 no receiver is running or the slot is at risk, 2 error.
    """
    from tmi_ops.postgres.replication import connect_replication
    from tmi_ops.postgres.wal_stream import identify
    from tmi_ops.wal.archive import list_clusters

    settings, store = open_environment(Purpose.RECEIVER)
    with connect_replication(settings.postgres) as connection:
        identity = identify(connection)
    out.print(f"Server    {settings.postgres.describe()}, cluster {identity.system_identifier}")
    is_well = identity.system_identifier in list_clusters(store)
    if not is_well:
        out.print("Archive   [yellow]no WAL of this cluster yet[/]. Next: [bold]tmi-ops wal stream[/]")
    else:
        is_well = _show_receiver(store, identity.system_identifier)
    return 0 if _show_slot(settings, slot) and is_well else 1


def _show_receiver(store: ObjectStore, system_identifier: str) -> bool:
    from tmi_ops.wal.lease import is_held, read_lease

    found = read_lease(store, system_identifier)
    if found is None:
        out.print("Receiver  [yellow]none so far[/]; the WAL was archived by `tmi-ops wal push`")
        return True
    lease, age = found
    at_work = is_held(lease, age)
    state = "[green]running[/]" if at_work else "[red]not running[/], last one"
    out.print(f"Receiver  {state}: {lease.describe()}")
    if lease.lsn is not None:
        out.print(f"Archive   up to {lease.lsn} on timeline {lease.timeline}")
    if lease.level_at is not None:
        out.print(f"Complete  up to {lease.level_at:%Y-%m-%d %H:%M:%S} UTC, {format_age(lease.level_at)}")
    if not at_work:
        out.print("Next: [bold]tmi-ops wal stream[/]")
    return at_work


def _show_slot(settings: Settings, slot: str | None) -> bool:
    from tmi_ops.wal.slot import read_our_server, read_server, slot_name, slot_warnings

    facts = read_our_server(settings) if slot is None else read_server(settings.postgres, slot)
    slot = slot or (facts.slot.name if facts.slot is not None else slot_name(settings))
    if facts.slot is None:
        out.print(f"Slot      [yellow]{slot} does not exist yet[/]; the receiver creates it")
        return False
    kept = "" if facts.slot.kept is None else f", retains {format_size(facts.slot.kept)} of WAL on the server"
    out.print(f"Slot      {slot}, {'in use' if facts.slot.active else 'not in use'}, {facts.slot.status}{kept}")
    if facts.synchronous:
        out.print("Commits   wait until WAL is stored (synchronous_standby_names includes tmi_ops or *)")
    for warning in slot_warnings(facts):
        out.print(f"[yellow]Warning[/]   {warning}")
    return facts.slot.status in ("reserved", "extended")


def _show(received: ReceivedWal) -> None:
    speed = received.received / max(received.duration_seconds, 0.001)
    out.print(
        f"The archive reaches [bold]{received.lsn}[/] on timeline {received.timeline}: "
        f"{format_size(received.received)} received, {received.segments} new segments, {format_size(speed)}/s."
    )
    if received.level_at is None:
        return
    moment = f"{received.level_at:%Y-%m-%d %H:%M:%S} UTC"
    if received.from_standby:
        out.print(
            f"The newest commit of the primary in the store is from {moment}; a standby does not know of later ones."
        )
    else:
        out.print(f"All WAL that the server had flushed at {moment} is in the store.")


def _tell_the_monitor(settings: Settings, store: ObjectStore) -> None:
    """Ping the external monitor if a backup plus WAL reaches a moment within the RPO: WAL alone restores nothing."""
    from tmi_ops.alerts.dead_man import ping_heartbeat
    from tmi_ops.errors import OpsError
    from tmi_ops.objectives.reading import read_recoverability

    if settings.alerts.heartbeat_url is None:
        return
    try:
        facts = read_recoverability(settings, store)
    except OpsError as error:
        err.print(
            f"[yellow]The external monitor was not pinged[/]: the recovery window could not be read. {error.message}"
        )
        return
    newest = facts.newest
    if newest is None or facts.server_now - newest.at > settings.objectives.rpo:
        err.print(
            "[yellow]The external monitor was not pinged[/]: no backup reaches a moment within the RPO. "
            "Next: [bold]tmi-ops backup base[/]"
        )
        return
    ping_heartbeat(
        settings,
        f"{settings.environment}: WAL is archived up to date; recoverable to {newest.at.astimezone(UTC):%F %T} UTC",
    )


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process as usual."""
    stop = threading.Event()

    def ask_to_stop(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop
