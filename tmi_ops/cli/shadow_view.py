"""How a shadow's report looks in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape

from tmi_ops.cli.terminal import format_duration, format_size, out
from tmi_ops.drill.evidence import TITLES

if TYPE_CHECKING:
    from tmi_ops.settings import Settings
    from tmi_ops.shadow.report import KnownReport, RollingCheck, Trouble

_COLOURS = {"level": "green", "catching up": "yellow", "restoring": "yellow", "stopped": "red", "ended": "dim"}
_MARKS = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "not run": "[yellow]-[/]", "not applicable": "-"}


def show_report(settings: Settings, known: KnownReport) -> None:
    """The report of one shadow."""
    from tmi_ops.shadow.reading import reachable_here

    report = known.report
    ago = format_duration(known.age.total_seconds())
    if known.is_stale and report.state != "ended":
        out.print(f"Shadow    {report.name} on {report.host}: [red]no report for {ago}[/], so its state is unknown")
    else:
        colour = _COLOURS[report.state]
        out.print(f"Shadow    {report.name} on {report.host}: [{colour}]{report.state}[/], reported {ago} ago")
    if report.verified_to is not None:
        since = format_duration(max(0.0, (datetime.now(UTC) - report.verified_to).total_seconds()))
        late = f" (delay {format_duration(report.delay_s)})" if report.delay_s else ""
        out.print(f"Verified  up to {report.verified_to:%Y-%m-%d %H:%M:%S} UTC, {since} ago{late}")
    if report.replayed_lsn is not None:
        behind = f", {format_size(report.behind)} behind the archive" if report.behind else ""
        out.print(
            f"Replayed  up to {report.replayed_lsn} on timeline {report.timeline}{behind}, from {report.backup_id}"
        )
    for trouble in report.troubles:
        _show_trouble(trouble)
    for check in report.checks:
        _show_check(check)
    requests = sum(report.requests.values())
    hours = max(1.0, (report.written_at - report.began_at).total_seconds()) / 3600
    out.print(f"Requests  {requests:,} to the store since its start ({requests / hours:,.0f} per hour)")
    reachable = reachable_here(settings, report)
    if reachable is not None:
        out.print(f"psql '{escape(reachable.connection_string)}'", soft_wrap=True)


def _show_trouble(trouble: Trouble) -> None:
    colour = "red" if trouble.stops else "yellow"
    out.print(f"[{colour}]{trouble.kind}[/] since {trouble.since:%Y-%m-%d %H:%M:%S} UTC: {escape(trouble.what)}")
    if trouble.hint:
        out.print(f"  to do: {escape(trouble.hint)}")


def _show_check(check: RollingCheck) -> None:
    title = TITLES.get(check.name, check.name)  # type: ignore[call-overload]
    share = f" ({check.covered:.0%} of this round)" if check.covered not in (None, 1.0) else ""
    out.print(f"  {_MARKS[check.outcome]} {title}{share}: {escape(check.detail)} {check.at:%H:%M:%S} UTC")
    for finding in check.findings:
        out.print(f"      {escape(finding)}")
