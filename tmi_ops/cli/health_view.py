"""How a health report looks in a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tmi_ops.cli.terminal import age_words, first_of, out
from tmi_ops.health.examine import HealthReport, Result
from tmi_ops.health.probe import Area
from tmi_ops.health.verdict import Row, Status

_MARKS = {
    Status.OK: ("✓", "green"),
    Status.WARNING: ("!", "yellow"),
    Status.CRITICAL: ("✗", "bold red"),
    Status.UNKNOWN: ("?", "dim"),
}
ROWS_SHOWN = 30


def show_health(report: HealthReport, *, tables: bool) -> None:
    """One line for each probe, by area; advice below what is not well; a closing line.

    Args:
        tables: also the table behind each figure.
    """
    out.print(f"{report.address}: PostgreSQL {report.server.version}", markup=False, soft_wrap=True)
    for area in Area:
        results = report.of(area)
        if results:
            out.print(Text(f"\n{area.value.replace('_', ' ')}", style="bold"))
            for result in results:
                _show_result(result, with_table=tables)
    _close(report, tables=tables)


def as_facts(report: HealthReport) -> dict[str, Any]:
    """The whole report for `--json`."""
    return {
        "environment": report.environment,
        "address": report.address,
        "server_version": report.server.version,
        "taken_at": report.server.now.isoformat(),
        "rates_since": report.since.isoformat() if report.since else None,
        "restarted_since": report.restarted,
        "status": report.status.value,
        "probes": [_result_facts(result) for result in report.results],
    }


def _result_facts(result: Result) -> dict[str, Any]:
    limits = result.thresholds
    return {
        "name": result.probe.name,
        "area": result.probe.area.value,
        "status": result.status.value,
        "summary": result.verdict.summary,
        "advice": result.verdict.advice,
        "remedy": list(result.verdict.remedy),
        "cause": result.verdict.cause.value if result.verdict.cause else None,
        "thresholds": {"warning": limits.warning, "critical": limits.critical, "unit": limits.unit},
        "numbers": dict(result.reading.numbers()) if result.reading else {},
        "reading": asdict(result.reading) if result.reading else None,
        "seconds": round(result.seconds, 4),
    }


def _show_result(result: Result, *, with_table: bool) -> None:
    mark, style = _MARKS[result.status]
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=2)
    line.add_column(width=26)
    line.add_column(overflow="fold")
    summary = Text(result.verdict.summary, style="dim" if result.status is Status.UNKNOWN else "")
    if result.status is not Status.OK and result.verdict.advice:
        summary.append(f"\n→ {result.verdict.advice}", style=style)
    line.add_row(Text(f" {mark}", style=style), Text(result.probe.name, style=style), summary)
    out.print(line)
    if with_table:
        for remedy in result.verdict.remedy:
            out.print(Text(f"     {remedy}", style="cyan"), soft_wrap=True)
        rows = result.reading.rows() if result.reading else ()
        if rows:
            shown, more = first_of(rows, ROWS_SHOWN)
            out.print(_table(shown))
            if more:
                out.print(Text(f"     {more}", style="dim"))


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim bold")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table.add_column("   ")
    for name in columns:
        numeric = all(isinstance(row[name], int | float) for row in rows if row.get(name) is not None)
        table.add_column(name.replace("_", " "), overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row("", *(Text(_cell(row, name)) for name in columns))
    return table


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _close(report: HealthReport, *, tables: bool) -> None:
    counts = Counter(result.status for result in report.results)
    words = ", ".join(f"{counts[status]} {status.value}" for status in reversed(Status) if counts[status])
    mark, style = _MARKS[report.status]
    out.print()
    out.print(Text(f"{mark} {words}", style=style))
    if report.since is None:
        out.print("  This is the first reading: rates and growth come with the next one.")
    else:
        restarted = ", and the server was restarted since" if report.restarted else ""
        out.print(f"  Rates are measured since the last reading, {age_words(report.since)}{restarted}.")
    if report.kept_in is None:
        out.print("  [yellow]This reading could not be kept[/]: the next run will have no rates either.")
    if not tables and any(result.verdict.remedy for result in report.results if result.status is not Status.OK):
        worst = next(one for one in report.results if one.status is report.status)
        out.print(f"  next: `tmi-ops health --probe {worst.probe.name}` shows its table and the SQL that helps")
