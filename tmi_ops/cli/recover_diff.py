"""`tmi-ops recover diff`."""

from __future__ import annotations

from datetime import datetime

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import json_option, quiet_option, rows_option
from tmi_ops.cli.rescue_options import moment_of, of_a_past, opened
from tmi_ops.settings import Purpose

DIFFERS = 1


@logs_in_for(Purpose.RUNBOOK)
@click.command()
@of_a_past
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="Compare only this table; repeatable. Default: all."
)
@rows_option(0)
@json_option
@quiet_option
def diff(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    exclusive: bool,
    travel: bool,
    shadow: bool,
    backup: str | None,
    tables: tuple[str, ...],
    rows: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the database with a past moment, row by row: deleted, inserted, changed. Changes nothing.

    The past is restored on this machine, next to the live database. Exit codes: 0 no differences, 1 differences, 2
    could not compare.
    """
    from tmi_ops.cli.rescue_view import row_json, show_difference, show_rows
    from tmi_ops.rescue.differences import find_differences, pair_of
    from tmi_ops.rescue.reading import differing_rows

    wanted = moment_of(to_time, to_lsn, to_name, exclusive=exclusive, backup=backup, travel=travel, shadow=shadow)
    settings, store = open_environment(Purpose.RUNBOOK)
    with opened(settings, store, wanted, quiet=quiet) as (sides, past):
        with reporting(quiet) as report:
            found = find_differences(sides, tables, past, report)
        if not as_json:
            show_difference(found)
        for table in found.tables:
            differing = differing_rows(sides, pair_of(sides, table), limit=None if as_json else rows)
            if as_json:
                for row in differing:
                    click.echo(row_json(row))
            elif rows:
                show_rows(differing, table.rows)
    return DIFFERS if found.tables else 0
