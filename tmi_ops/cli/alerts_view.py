"""How alerts are shown in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tmi_ops.alerts.record import AlertRecord, Delivery, DeliveryState, Notice
from tmi_ops.alerts.wording import format_moment
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.terminal import format_age
from tmi_ops.settings import Settings
from tmi_ops.text import format_duration

_COLOURS = {Severity.NOTICE: "cyan", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}
_STATES = {
    DeliveryState.DELIVERED: "[green]delivered[/]",
    DeliveryState.CLAIMED: "being sent",
    DeliveryState.FAILED: "[red]not delivered[/]",
}


def show_alerts(console: Console, records: Sequence[AlertRecord], settings: Settings, show_all: bool) -> None:
    """The open ones in full; resolved ones in a line each, if asked for."""
    still_open = [record for record in records if record.is_open]
    still_open.sort(key=lambda record: record.alert.severity.rank, reverse=True)
    over = [record for record in records if not record.is_open]
    number = len(still_open)
    console.print(
        f"[green]No alert is open in {settings.name}.[/]"
        if not number
        else f"[bold]{number} {'alert is' if number == 1 else 'alerts are'} open in {settings.name}.[/]"
    )
    for record in still_open:
        console.print()
        _show_open(console, record)
    if over and show_all:
        console.print("\n[bold]Resolved[/]")
        for record in over:
            _show_over(console, record)
    elif over:
        console.print(f"{len(over)} {'is' if len(over) == 1 else 'are'} resolved: `tmi-ops alerts --all`.")
    if not (settings.alerts.urls or settings.alerts.urls_warning or settings.alerts.urls_critical):
        console.print("[yellow]Nobody is notified of alerts:[/] set TMI_OPS_ALERT_URLS, then `tmi-ops alert test`.")


def show_history(console: Console, record: AlertRecord) -> None:
    """One alert and every message about it."""
    if record.is_open:
        _show_open(console, record)
    else:
        _show_over(console, record)
    for notice in record.notices:
        console.print(f"\n[bold]{format_moment(notice.at)}  {notice.kind}[/] ({notice.alert.severity})")
        if notice.resolution:
            console.print(Padding(f"Resolution: {escape(notice.resolution)}", (0, 0, 0, 2)))
        for delivery in notice.deliveries:
            console.print(Padding(_describe_delivery(delivery), (0, 0, 0, 2)))
        if not notice.deliveries:
            console.print("  no channel receives it")


def show_deliveries(console: Console, problems: Mapping[str, str]) -> None:
    """The outcome of each delivery."""
    for channel, problem in problems.items():
        console.print(f"[red]not delivered[/]  {escape(channel)}" if problem else f"[green]sent[/]  {escape(channel)}")
        if problem:
            console.print(Padding(escape(problem), (0, 0, 0, 4)))


def _show_open(console: Console, record: AlertRecord) -> None:
    alert = record.alert
    colour = _COLOURS[alert.severity]
    console.print(f"[bold {colour}]{alert.severity.upper()}[/]  [bold]{escape(alert.summary)}[/]  ({alert.key})")
    rows = {
        "at risk": escape(alert.at_risk),
        "since": f"{format_moment(alert.since)} ({format_age(alert.since)})",
        "done": escape(alert.done),
        "to do": f"[bold]{escape(alert.to_do)}[/]",
        "notified": _describe_notices(record),
    }
    table = Table(show_header=False, box=None, padding=(0, 1), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(Padding(table, (0, 0, 0, 2)))


def _show_over(console: Console, record: AlertRecord) -> None:
    ended = record.resolved_at or record.seen_at
    lasted = format_duration((ended - record.alert.since).total_seconds())
    console.print(
        f"{format_moment(ended)}  {escape(record.alert.summary)} ({record.alert.key}): {record.worst}, lasted {lasted}"
    )


def _describe_notices(record: AlertRecord) -> str:
    last: Notice | None = record.notices[-1] if record.notices else None
    if last is None or not last.deliveries:
        return "[yellow]nobody: no channel receives it[/]"
    return f"{format_moment(last.at)}\n" + "\n".join(_describe_delivery(delivery) for delivery in last.deliveries)


def _describe_delivery(delivery: Delivery) -> str:
    words = f"{_STATES[delivery.state]}: {escape(delivery.channel)}"
    if delivery.state is DeliveryState.FAILED:
        times = f" after {delivery.attempts} attempts" if delivery.attempts > 1 else ""
        words += f"{times}: {escape(delivery.problem)}"
    return words
