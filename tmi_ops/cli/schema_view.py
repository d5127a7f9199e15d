"""How a validation and a migration look in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.markup import escape
from rich.text import Text

from tmi_ops.checks.finding import Outcome
from tmi_ops.cli.checks_view import FINDINGS_SHOWN, MARKS, SEVERITY_MARKS, show_findings
from tmi_ops.cli.terminal import format_duration, format_size, out
from tmi_ops.schema.findings import SEVERITIES
from tmi_ops.schema.models import Base
from tmi_ops.schema.rules import LEVELS, Level, Rule

if TYPE_CHECKING:
    from tmi_ops.schema.migration import MigrationResult
    from tmi_ops.schema.operations import Blocked
    from tmi_ops.schema.validation import Validation


def show_validation(validation: Validation, *, verbose: bool, after_migration: bool = False) -> None:
    """Connection, tables with rows, findings, and a closing line with what to do.

    Args:
        after_migration: leave out the tables and mere information.
    """
    if not after_migration:
        size = format_size(validation.database_size)
        out.print(
            f"[green]✓[/] connected to {escape(validation.address)}: PostgreSQL {validation.server_version}, {size}",
            soft_wrap=True,
        )
        out.print()
        out.print(_tables(validation))
    levels = LEVELS if verbose else LEVELS[:2] if after_migration else LEVELS[:3]
    shown = [one for one in validation.findings if one.level in levels and (verbose or one.rule is not Rule.SUMMARY)]
    if shown:
        out.print()
        show_findings([one.finding for one in shown], len(shown) if verbose else FINDINGS_SHOWN)
    _close(validation)


def show_result(result: MigrationResult) -> None:
    """What a migration did, and what it could not do."""
    took = format_duration(result.seconds)
    if not result.operations:
        out.print(f"[green]✓[/] nothing to do (checked in {took})")
    else:
        kinds = Counter(_KINDS[type(one).__name__] for one in result.operations)
        done = ", ".join(f"{count} {noun}{_s(count)} {action}" for (noun, action), count in kinds.items())
        seeded = f" ({result.seeded_rows} rows)" if result.seeded_rows else ""
        out.say(f"[green]✓[/] migrated in {took}: {done}{seeded}", hang=2)
    for line in blocked_lines(result.blocked):
        out.say(Text(f"  {line}"))


def blocked_lines(blocked: Sequence[Blocked]) -> Iterator[str]:
    """Two lines for each operation that is left to a person."""
    if blocked:
        yield "Left to you:"
    for one in blocked:
        yield f"  {one.table}: {one.name}: {one.reason}"
        yield f"    next: {one.remedy}"


_KINDS = {
    "CreateDatabase": ("database", "created"),
    "CreateTable": ("table", "created"),
    "AddColumn": ("column", "added"),
    "SetDefault": ("default", "set"),
    "RequireValue": ("column", "made NOT NULL"),
    "AddPrimaryKey": ("primary key", "added"),
    "BuildIndex": ("index build", "done"),
    "AddConstraint": ("constraint", "added"),
    "ValidateConstraint": ("constraint", "validated"),
    "InsertSeed": ("table", "seeded"),
}


def _tables(validation: Validation) -> Columns:
    marks: dict[str, Level] = {}
    for level in reversed(LEVELS[:2]):
        marks |= {one.table: level for one in validation.at(level) if one.table}
    names = sorted({*Base.metadata.tables, *validation.tables})
    counts = {name: _rows(validation, name) for name in names}
    name_width = max(map(len, names))
    count_width = max(map(len, counts.values()))
    cells = []
    for name, count in counts.items():
        mark, style = SEVERITY_MARKS[SEVERITIES[marks[name]]] if name in marks else MARKS[Outcome.OK]
        cells.append(Text.assemble((mark, style), f" {name:<{name_width}}  ", (f"{count:>{count_width}}", "bold")))
    return Columns(cells, padding=(0, 3), column_first=True)


def _rows(validation: Validation, table: str) -> str:
    if table not in validation.tables:
        return "-"
    return f"{'~' if table in validation.estimated else ''}{validation.tables[table]:,}"


def _close(validation: Validation) -> None:
    errors, warnings = len(validation.at("ERROR")), len(validation.at("WARN"))
    expected = len(Base.metadata.tables)
    present = sum(name in Base.metadata.tables for name in validation.tables)
    counted = f"{errors} error{_s(errors)}, {warnings} warning{_s(warnings)}"
    out.print()
    if errors:
        out.print(f"[bold red]✗[/] the schema is not what TMI needs: {counted}, {present} of {expected} tables")
    elif warnings:
        out.print(f"[green]✓[/] the schema is sufficient for TMI: {counted}, {present} of {expected} tables")
    else:
        out.print(f"[green]✓[/] the schema is what TMI needs: {present} of {expected} tables, no differences")
    if any(one.rule in _MIGRATABLE for one in validation.findings):
        out.print("  next: `tmi-ops migrate --dry-run` shows what can be added, and the locks it takes")
    if validation.estimated:
        out.print(f"  ~ {', '.join(validation.estimated)}: too large to count; the planner's estimate is shown")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


_MIGRATABLE = {
    Rule.MISSING_TABLE,
    Rule.MISSING_COLUMN,
    Rule.MISSING_PRIMARY_KEY,
    Rule.MISSING_INDEX,
    Rule.INVALID_INDEX,
    Rule.MISSING_FOREIGN_KEY,
    Rule.MISSING_CHECK,
    Rule.CONSTRAINT_NOT_VALID,
}
