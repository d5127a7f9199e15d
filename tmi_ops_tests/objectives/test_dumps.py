"""The logical backups of a database beside its environment's own: how fresh the proof of them is."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import pytest

from tmi_ops.objectives.dumps import judge_dumps
from tmi_ops.objectives.facts import LogicalBackup
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.status import judge_facts
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops_tests.objectives.facts import NOW, PRODUCTION, ago, facts
from tmi_ops_tests.objectives.statuses import SETTINGS, a_status

NIGHTLY = plan_timetable(PRODUCTION).logical
Outcome = Literal["proven", "failed", "not proven"]


def dump(hours: float, outcome: Outcome) -> LogicalBackup:
    return LogicalBackup(f"{hours:g}-hours-ago", ago(hours=hours), 1000, 9000, outcome)


@pytest.mark.parametrize(
    ("dumps", "standing", "value_h", "said", "cures"),
    [
        ([], Standing.BREACHED, None, "There is no logical backup", ["tmi-ops backup logical"]),
        ([(10, "proven")], Standing.MET, 10, "10-hours-ago, is 10 h old.", []),
        ([(36, "proven")], Standing.MET, 36, "36-hours-ago, is 36 h old.", []),
        ([(36.1, "proven")], Standing.AT_RISK, 36.1, "the limit is 36 h.", ["tmi-ops backup logical"]),
        ([(60, "proven")], Standing.AT_RISK, 60, "2 d 12 h old", ["tmi-ops backup logical"]),
        ([(60.1, "proven")], Standing.BREACHED, 60.1, "2 d 12 h old", ["tmi-ops backup logical"]),
        (
            [(1, "not proven"), (37, "proven")],
            Standing.AT_RISK,
            37,
            "A newer one, 1-hours-ago, is not verified.",
            ["tmi-ops verify 1-hours-ago", "tmi-ops backup logical"],
        ),
        ([(40, "not proven"), (70, "proven")], Standing.BREACHED, 70, "is not verified", ["tmi-ops backup logical"]),
        ([(1, "not proven"), (25, "proven")], Standing.MET, 25, "25-hours-ago", []),
        ([(1, "failed"), (25, "proven")], Standing.AT_RISK, 25, "failed verification", ["tmi-ops backup logical"]),
        ([(1, "failed")], Standing.BREACHED, None, "1-hours-ago, failed verification", ["tmi-ops backup logical"]),
        (
            [(1, "not proven")],
            Standing.BREACHED,
            None,
            "is not verified",
            ["tmi-ops verify 1-hours-ago", "tmi-ops backup logical"],
        ),
        ([(-0.1, "proven")], Standing.MET, 0, "is 0 s old", []),
    ],
)
def test_the_age_of_the_newest_proven_one_is_judged_by_how_often_one_comes(
    dumps: list[tuple[float, Outcome]], standing: Standing, value_h: float | None, said: str, cures: list[str]
) -> None:
    reading = judge_dumps([dump(*one) for one in dumps], NIGHTLY, NOW)
    assert reading.standing is standing
    assert reading.value == (None if value_h is None else timedelta(hours=value_h))
    assert reading.objective == timedelta(hours=36)
    assert said in reading.reason
    assert [cure.command for cure in reading.cures] == cures


def test_only_a_database_beside_has_this_promise_and_its_status_keeps_it() -> None:
    beside = SETTINGS.model_copy(update={"database": "billing"})
    late = facts(logical=(dump(70, "proven"),))
    own, other = (judge_facts(one, late, []) for one in (SETTINGS, beside))
    assert own.dumps is None, "the RPO of an environment's own database counts them"
    assert a_status(recoverability=own).standing is Standing.MET
    assert other.dumps is not None
    assert a_status(recoverability=other).standing is Standing.BREACHED
    assert other.rpo.standing is Standing.MET, "its cluster's WAL is well"
