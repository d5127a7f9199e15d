"""The actions of the runbook. Everything is written in one transaction, so a crash leaves all of it or nothing.

The transaction id and its result are in the journal before the commit. When resumed in another process, the live server
is asked for the transaction's outcome: if it committed, it is not repeated, whatever the application has written since.
If not, the past is restored and compared again, and nothing is done if the database has changed since the confirmation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect, transaction_outcome
from tmi_ops.progress import Report
from tmi_ops.rescue.columns.execution import ColumnsRestored, execute_columns
from tmi_ops.rescue.columns.planning import ColumnsPlan, plan_columns
from tmi_ops.rescue.execution import Rescued, execute_rescue
from tmi_ops.rescue.planning import RescuePlan, plan_rescue
from tmi_ops.rescue.selection import Selection
from tmi_ops.rescue.session import Sides, both_sides
from tmi_ops.rescue.values_only import with_values_only
from tmi_ops.runbooks.execution import Action, Actions, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Fact
from tmi_ops.runbooks.rows.planning import COLUMN, ROWS
from tmi_ops.runbooks.rows.request import RowsRequest
from tmi_ops.runbooks.steps.cache import CACHE_OF_ROWS, CACHE_STEP
from tmi_ops.shadow.past import past_of


@dataclass(frozen=True)
class Opened:
    """An open past next to the live database, and the plan made from it."""

    sides: Sides
    plan: RescuePlan | ColumnsPlan

    @classmethod
    def of(cls, sides: Sides, selection: Selection, past: str, report: Report) -> Opened:
        """Plan the selection: columns if it names any, else rows. `past`: a description of the past."""
        plan = plan_columns if selection.columns else plan_rescue
        if selection.values is not None:
            sides = with_values_only(sides, selection.values)
        return cls(sides, plan(sides, selection, past, report))


class Signed(Fact):
    """The transaction that was about to commit, and its result if it did."""

    transaction: int
    answer: Answer
    said: str


def actions(opened: Opened | None = None) -> Actions:
    """The actions by step; they use `opened`, or open the past themselves."""

    def bring_rows_back(work: Work) -> None:
        if _was_committed(work):
            return
        with _at_hand(work, opened) as ready:
            if isinstance(ready.plan, ColumnsPlan):
                _require_agreed(work, ready.plan)
                execute_columns(
                    ready.sides,
                    ready.plan,
                    work.report,
                    lambda number, done: _sign(work, number, _answer_of_columns(done), _said_of_columns(done)),
                )
            elif not ready.plan.rows and not ready.plan.unsolved:
                work.say("The rows are already as they were; nothing to do.")
                return
            else:
                _require_agreed(work, ready.plan)
                execute_rescue(
                    ready.sides,
                    ready.plan,
                    work.report,
                    lambda number, done: _sign(work, number, _answer_of_rows(done), _said_of_rows(done)),
                )
        _tell(work)

    return {ROWS: Action(bring_rows_back), COLUMN: Action(bring_rows_back), CACHE_STEP: CACHE_OF_ROWS}


@contextmanager
def _at_hand(work: Work, opened: Opened | None) -> Iterator[Opened]:
    if opened is not None:
        yield opened
        return
    settings, request = work.settings, RowsRequest.model_validate(work.journal.plan.requests)
    with (
        past_of(settings, work.store, request.moment, work.report) as past,
        both_sides(past.address, settings.postgres, settings.pg_bindir, settings.profile.ties) as sides,
    ):
        yield Opened.of(sides, request.selection, past.text, work.report)


def _was_committed(work: Work) -> bool:
    """Whether an earlier attempt at this step committed but was cut off before it could record that."""
    signed = work.journal.known(Signed)
    if signed is None:
        return False
    with connect(work.settings.postgres) as connection:
        outcome = transaction_outcome(connection, signed.transaction)
    if outcome == "in progress":
        raise RecoveryError(
            f"Transaction {signed.transaction} of the attempt that was cut off is still running on the server.",
            hint="wait until it ends; see pg_stat_activity, or pg_prepared_xacts if no session has it",
            transient=True,
        )
    if outcome == "committed":
        _tell(work)
        return True
    return False


def _require_agreed(work: Work, plan: RescuePlan | ColumnsPlan) -> None:
    request = RowsRequest.model_validate(work.journal.plan.requests)
    if plan.digest != request.digest:
        what = "values" if request.selection.columns else "rows"
        raise RecoveryError(
            f"The database has changed since the plan was confirmed: other {what} would be written now.",
            hint="review the plan with the same command and --dry-run, then start a new run",
            code=Code.ROWS_CHANGED,
        )


def _sign(work: Work, transaction: int, answer: Answer, said: str) -> None:
    work.remember(Signed(transaction=transaction, answer=answer, said=said))


def _tell(work: Work) -> None:
    signed = work.known(Signed)
    work.answer(signed.answer)
    work.say(signed.said)


def _answer_of_rows(rescued: Rescued) -> Answer:
    tables = tuple(
        f"{name}: {written.inserted:,} inserted, {written.updated:,} updated"
        + (f", {written.altered:,} altered by triggers" if written.altered else "")
        for name, written in rescued.tables.items()
    )
    sequences = tuple(f"sequence {name} set to {value:,}" for name, value in rescued.sequences.items())
    recreated = tuple(f"recreated {thing}" for thing in rescued.recreated)
    detail = f"{'; '.join(rescued.checks)}."
    return Answer(title="Rows restored", outcome="passed", detail=detail, findings=(*tables, *sequences, *recreated))


def _said_of_rows(rescued: Rescued) -> str:
    tables = len(rescued.tables)
    return f"Restored {rescued.rows:,} rows in {tables} table{'' if tables == 1 else 's'}."


def _answer_of_columns(restored: ColumnsRestored) -> Answer:
    plan = restored.plan
    return Answer(
        title="Columns restored",
        outcome="passed",
        detail=f"{'; '.join(restored.checks)}.",
        findings=(
            *(f"restored {what}" for what in plan.returning),
            *(f"{name} was NOT NULL and now allows NULL" for name in restored.nullable),
            *(f"not restored: {what}" for what in plan.dependents.lost),
        ),
    )


def _said_of_columns(restored: ColumnsRestored) -> str:
    return f"Restored {restored.plan.names} of {restored.plan.table}, with its past values in {restored.rows:,} rows."


ACTIONS = actions()
