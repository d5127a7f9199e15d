"""The deeds of the runbook. The rows are written in one transaction, so that a crash leaves all of them or none.

Resumed in another process, the past is restored again and compared anew: where the rows are back already, nothing is
left to do; where the database has changed since somebody agreed, nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tmi_ops.cache.connection import connected
from tmi_ops.cache.reconciliation import read_and_plan, reconcile
from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.rescue.execution import Rescued, bring_back
from tmi_ops.recovery.rescue.past import past_database
from tmi_ops.recovery.rescue.planning import RescuePlan, plan_rescue
from tmi_ops.recovery.rescue.session import Sides, both_sides
from tmi_ops.runbooks.execution import Action, Actions, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.rows.planning import CACHE, ROWS
from tmi_ops.runbooks.rows.wish import RowsWish


@dataclass(frozen=True)
class Opened:
    """A past that stands beside the living database already, and what was planned on it."""

    sides: Sides
    plan: RescuePlan


def actions(opened: Opened | None = None) -> Actions:
    """The deeds by step; on what is opened already, or on what they open themselves."""

    def bring_rows_back(work: Work) -> None:
        wish = RowsWish.model_validate(work.journal.plan.wishes)
        with _at_hand(work, wish, opened) as ready:
            if not ready.plan.rows:
                work.say("all of it is as it was: the rows are back already")
                return
            if ready.plan.digest != wish.digest:
                raise RecoveryError(
                    "The rows that would be written now are not those that were agreed to.",
                    next_step="look at it anew: tmi-ops recover rows --dry-run",
                )
            _tell(work, bring_back(ready.sides, ready.plan, work.report))

    return {ROWS: Action(bring_rows_back), CACHE: Action(_reconcile)}


@contextmanager
def _at_hand(work: Work, wish: RowsWish, opened: Opened | None) -> Iterator[Opened]:
    if opened is not None:
        yield opened
        return
    settings = work.settings
    with (
        past_database(settings, work.store, wish.moment, work.report) as past,
        both_sides(past.address, settings.postgres, settings.pg_bindir) as sides,
    ):
        yield Opened(sides, plan_rescue(sides, wish.selection, past.words, work.report))


def _tell(work: Work, rescued: Rescued) -> None:
    tables = tuple(
        f"{name}: {written.inserted:,} inserted, {written.updated:,} changed back"
        + (f", {written.altered:,} altered by triggers" if written.altered else "")
        for name, written in rescued.tables.items()
    )
    sequences = tuple(f"sequence {name} goes on after {value:,}" for name, value in rescued.sequences.items())
    recreated = tuple(f"{thing} was created again" for thing in rescued.recreated)
    detail = f"{'; '.join(rescued.checks)}."
    work.answer(Answer(title="The rows", outcome="passed", detail=detail, findings=(*tables, *sequences, *recreated)))
    work.say(f"{rescued.rows:,} rows are back in {len(rescued.tables)} tables")


def _reconcile(work: Work) -> None:
    """Rows changed under the cache, but time did not jump: nobody has to sign in again."""
    settings = work.settings
    policy = settings.cache.model_copy(update={"sessions": "keep-sessions"})
    with connected(settings.redis) as client:
        plan = read_and_plan(client, policy, settings.redis.describe(), work.report)
        done = reconcile(plan, client, work.report)
    work.say(f"{done.keys:,} stale copies were dropped, {plan.kept:,} keys kept")


ACTIONS = actions()
