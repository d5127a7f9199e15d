"""The runbook for the plan of a rescue. Asks only the cache, whether it answers."""

from __future__ import annotations

from tmi_ops.rescue.columns.planning import ColumnsPlan
from tmi_ops.rescue.past import Moment
from tmi_ops.rescue.planning import RescuePlan
from tmi_ops.rescue.selection import SetColumns
from tmi_ops.runbooks.plan import Plan, Step
from tmi_ops.runbooks.rows.request import request_of
from tmi_ops.runbooks.steps.cache import cache_notes, left_undone, steps_after_rows
from tmi_ops.settings import Settings

ROWS, COLUMN = "rows", "column"


def runbook_of(
    settings: Settings, moment: Moment, rescue: RescuePlan | ColumnsPlan, *, with_cache: bool = True
) -> Plan:
    """The steps, with the request that selects the same rows again."""
    if isinstance(rescue, ColumnsPlan):
        writing = _columns_step(rescue)
        untouched = "No row is deleted, no other column is changed, no trigger is disabled."
    else:
        writing = _rows_step(rescue)
        untouched = "No row is deleted and no trigger is disabled. The application can keep running."
    return Plan(
        runbook="rows",
        title=f"Restore {rescue.selection.describe()}",
        subject=f"{rescue.database} on {settings.postgres.host}:{settings.postgres.port}, as of {rescue.past}",
        steps=(writing, *steps_after_rows(settings, wanted=with_cache)),
        untouched=untouched,
        notes=(*rescue.notes, *cache_notes(settings, wanted=with_cache)),
        afterwards=left_undone(settings, wanted=with_cache, policy="keep-sessions"),
        requests=request_of(moment, rescue.selection, rescue.digest).model_dump(mode="json"),
    )


def _rows_step(rescue: RescuePlan) -> Step:
    values = rescue.selection.values
    insert, update = (sum(getattr(table, kind) for table in rescue.tables) for kind in ("insert", "update"))
    tables = sum(1 for table in rescue.tables if table.written)
    return Step(
        name=ROWS,
        does=f"{_changes(insert, update, values)} in {tables} table{'' if tables == 1 else 's'}, in one transaction; "
        "compare the result with the past before the commit",
        effect="irreversible",
    )


def _changes(insert: int, update: int, values: SetColumns | None) -> str:
    columns = f"{' and '.join(values.columns)} of " if values else ""
    changes = [
        f"insert {insert:,} row{'' if insert == 1 else 's'}" if insert or not update else "",
        f"update {columns}{update:,} row{'' if update == 1 else 's'}" if update else "",
    ]
    return " and ".join(filter(None, changes))


def _columns_step(rescue: ColumnsPlan) -> Step:
    others = f"; {rescue.others:,} other rows get {rescue.others_get()}" if rescue.others else ""
    return Step(
        name=COLUMN,
        does=f"add {rescue.names} to {rescue.table} and set its past values in {rescue.rows:,} rows{others}; in one "
        "transaction, which is compared with the past before the commit and locks the table: the application waits "
        "for it",
        effect="irreversible",
    )
