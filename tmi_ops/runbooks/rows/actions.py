"""The deeds of the runbook. What is written is written in one transaction, so that a crash leaves all of it or nothing.

The transaction's number and what it did are in the journal before the commit. Resumed in another process, the living
server is asked what became of it: committed, it is not done again, whatever the application has written since; else the
past is restored again and compared anew, and where the database has changed since somebody agreed, nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.transactions import transaction_outcome
from tmi_ops.progress import Report
from tmi_ops.rescue.columns.execution import ColumnsRestored, bring_back_columns
from tmi_ops.rescue.columns.planning import ColumnsPlan, plan_columns
from tmi_ops.rescue.execution import Rescued, bring_back
from tmi_ops.rescue.planning import RescuePlan, plan_rescue
from tmi_ops.rescue.selection import Selection
from tmi_ops.rescue.session import Sides, both_sides
from tmi_ops.rescue.values_only import with_values_only
from tmi_ops.runbooks.execution import Action, Actions, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Fact
from tmi_ops.runbooks.rows.planning import COLUMN, ROWS
from tmi_ops.runbooks.rows.wish import RowsWish
from tmi_ops.runbooks.steps.cache import CACHE_OF_ROWS, CACHE_STEP
from tmi_ops.shadow.past import past_of


@dataclass(frozen=True)
class Opened:
    """A past that stands beside the living database already, and what was planned on it."""

    sides: Sides
    plan: RescuePlan | ColumnsPlan

    @classmethod
    def of(cls, sides: Sides, selection: Selection, past: str, report: Report) -> Opened:
        """Plan what the selection asks for: columns, where it names any, else rows. `past`: which one, in words."""
        plan = plan_columns if selection.columns else plan_rescue
        if selection.values is not None:
            sides = with_values_only(sides, selection.values)
        return cls(sides, plan(sides, selection, past, report))


class Signed(Fact):
    """The transaction that was about to be committed, and what is to be said of it if it was."""

    transaction: int
    answer: Answer
    said: str


def actions(opened: Opened | None = None) -> Actions:
    """The deeds by step; on what is opened already, or on what they open themselves."""

    def bring_rows_back(work: Work) -> None:
        if _was_committed(work):
            return
        with _at_hand(work, opened) as ready:
            if isinstance(ready.plan, ColumnsPlan):
                _require_agreed(work, ready.plan)
                bring_back_columns(
                    ready.sides,
                    ready.plan,
                    work.report,
                    lambda number, done: _sign(work, number, _answer_of_columns(done), _said_of_columns(done)),
                )
            elif not ready.plan.rows and not ready.plan.unsolved:
                work.say("all of it is as it was: the rows are back already")
                return
            else:
                _require_agreed(work, ready.plan)
                bring_back(
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
    settings, wish = work.settings, RowsWish.model_validate(work.journal.plan.wishes)
    with (
        past_of(settings, work.store, wish.moment, work.report) as past,
        both_sides(past.address, settings.postgres, settings.pg_bindir, settings.profile.ties) as sides,
    ):
        yield Opened.of(sides, wish.selection, past.words, work.report)


def _was_committed(work: Work) -> bool:
    """Whether an earlier attempt at this step did it, and only could not say so."""
    signed = work.journal.known(Signed)
    if signed is None:
        return False
    with connect(work.settings.postgres) as connection:
        outcome = transaction_outcome(connection, signed.transaction)
    if outcome == "in progress":
        raise RecoveryError(
            f"The server is still at transaction {signed.transaction} of the attempt that was cut off.",
            hint="see pg_stat_activity, and pg_prepared_xacts if no session has it; wait until it is over",
            transient=True,
        )
    if outcome == "committed":
        _tell(work)
        return True
    return False


def _require_agreed(work: Work, plan: RescuePlan | ColumnsPlan) -> None:
    wish = RowsWish.model_validate(work.journal.plan.wishes)
    if plan.digest != wish.digest:
        what = "values" if wish.selection.columns else "rows"
        raise RecoveryError(
            f"The {what} that would be written now are not what was agreed to: the database has changed since.",
            hint="look at it anew with the same command and --dry-run, and begin a new run",
        )


def _sign(work: Work, transaction: int, answer: Answer, said: str) -> None:
    work.remember(Signed(transaction=transaction, answer=answer, said=said))


def _tell(work: Work) -> None:
    signed = work.known(Signed)
    work.answer(signed.answer)
    work.say(signed.said)


def _answer_of_rows(rescued: Rescued) -> Answer:
    tables = tuple(
        f"{name}: {written.inserted:,} inserted, {written.updated:,} changed back"
        + (f", {written.altered:,} altered by triggers" if written.altered else "")
        for name, written in rescued.tables.items()
    )
    sequences = tuple(f"sequence {name} goes on after {value:,}" for name, value in rescued.sequences.items())
    recreated = tuple(f"{thing} was created again" for thing in rescued.recreated)
    detail = f"{'; '.join(rescued.checks)}."
    return Answer(title="The rows", outcome="passed", detail=detail, findings=(*tables, *sequences, *recreated))


def _said_of_rows(rescued: Rescued) -> str:
    tables = len(rescued.tables)
    return f"{rescued.rows:,} rows are back in {tables} table{'' if tables == 1 else 's'}"


def _answer_of_columns(restored: ColumnsRestored) -> Answer:
    plan = restored.plan
    return Answer(
        title="The column",
        outcome="passed",
        detail=f"{'; '.join(restored.checks)}.",
        findings=(
            *(f"{what} is back" for what in plan.returning),
            *(f"{name} may be NULL, unlike then" for name in restored.nullable),
            *(f"did not come back: {what}" for what in plan.belongings.lost),
        ),
    )


def _said_of_columns(restored: ColumnsRestored) -> str:
    return f"{restored.plan.names} of {restored.plan.table} is back, with the values of then in {restored.rows:,} rows"


ACTIONS = actions()
