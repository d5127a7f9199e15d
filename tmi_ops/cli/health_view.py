"""How a health report looks in a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tmi_ops.checks.finding import Outcome
from tmi_ops.cli.checks_view import MARKS, result_facts, show_result
from tmi_ops.cli.terminal import first_of, format_age, out
from tmi_ops.health.answer import PROBE_OUTCOMES, Row
from tmi_ops.health.examine import Examined, HealthReport
from tmi_ops.health.probe import Area

ROWS_SHOWN = 30


def show_health(report: HealthReport, *, tables: bool) -> None:
    """A line for each probe, by area, with advice if it is not OK; a closing line.

    Args:
        tables: also show the table of each probe.
    """
    out.print(f"{report.address}: PostgreSQL {report.server.version}", markup=False, soft_wrap=True)
    for area in Area:
        results = report.of(area)
        if results:
            out.print(Text(f"\n{area.value.replace('_', ' ')}", style="bold"))
            for result in results:
                _show(result, with_table=tables)
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
        "outcome": report.outcome.value,
        "probes": [_facts(result) for result in report.results],
    }


def _facts(examined: Examined) -> dict[str, Any]:
    limits = examined.thresholds
    return {
        **result_facts(examined.result),
        "cause": examined.cause.value if examined.cause else None,
        "thresholds": {"warning": limits.warning, "critical": limits.critical, "unit": limits.unit},
        "numbers": dict(examined.reading.numbers()) if examined.reading else {},
        "reading": asdict(examined.reading) if examined.reading else None,
        "seconds": round(examined.seconds, 4),
    }


def _show(examined: Examined, *, with_table: bool) -> None:
    show_result(examined.result, advice="all" if with_table else "hint", title=examined.probe.name)
    rows = examined.reading.rows() if with_table and examined.reading else ()
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
    counts = Counter(result.outcome for result in report.results)
    words = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in reversed(PROBE_OUTCOMES) if counts[outcome])
    mark, style = MARKS[report.outcome]
    out.print()
    out.print(Text(f"{mark} {words}", style=style))
    if report.since is None:
        out.print("  This is the first reading; the next one shows rates and growth.")
    else:
        restarted = "; the server has been restarted since then" if report.restarted else ""
        out.print(f"  Rates are measured since the last reading, {format_age(report.since)}{restarted}.")
    if report.kept_in is None:
        out.print("  [yellow]This reading could not be saved[/], so the next run will not show rates either.")
    if not tables and any(result.answer.advice for result in report.results if result.outcome is not Outcome.OK):
        worst = next(one for one in report.results if one.outcome is report.outcome)
        out.print(f"  next: `tmi-ops health --probe {worst.probe.name}` shows its table and the SQL that helps")
