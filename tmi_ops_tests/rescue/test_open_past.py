"""Which way an open past has to be moved to another moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.recovery.point_in_time.facts import NamedPlace
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan, plan_recovery
from tmi_ops.recovery.point_in_time.replay import Reached
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.travel.open_past import lies_before
from tmi_ops.rescue.travel.state import OpenPast, Wanted
from tmi_ops_tests.recovery.point_in_time.pasts import a_base, an_archive, lsn, minutes, some_facts

WAL = an_archive({1: range(3, 9)}, {1: (9, 9.5)})
MADE_AT, LIES_AT = minutes(5), lsn(5)
# The last commit was two minutes before.
REACHED = Reached(LIES_AT, minutes(3), "stopped", in_recovery=True, timeline=1)
NAMED = Target(name="noon")
EXCLUSIVE = Target(time=MADE_AT, inclusive=False)


def planned(target: Target, made_at: datetime | None = MADE_AT, lies_at: int = LIES_AT) -> RecoveryPlan:
    return plan_recovery(
        some_facts((a_base("full", 2.5),), WAL, restore_point=NamedPlace(lies_at, made_at)),
        target,
    )


@pytest.mark.parametrize(
    ("stands", "asked", "is_before"),
    [
        (planned(Target(time=MADE_AT)), planned(Target(time=minutes(6))), False),
        (planned(Target(time=MADE_AT)), planned(Target(time=MADE_AT)), False),
        (planned(Target(time=MADE_AT)), planned(EXCLUSIVE), True),
        (planned(Target(time=MADE_AT)), planned(Target(time=minutes(4))), True),
        (planned(NAMED), planned(Target(time=minutes(5.1))), False),
        (planned(NAMED), planned(Target(time=minutes(4))), True),
        (planned(NAMED, None), planned(Target(time=minutes(4))), False),
        (planned(NAMED, None), planned(Target(time=minutes(3))), True),
        (planned(Target(lsn=LIES_AT)), planned(Target(lsn=LIES_AT)), False),
        (planned(Target(lsn=LIES_AT)), planned(Target(lsn=LIES_AT - 1)), True),
        (planned(Target(time=MADE_AT)), planned(NAMED, lies_at=LIES_AT), True),
        (planned(Target(time=MADE_AT)), planned(NAMED, lies_at=LIES_AT + 1), False),
    ],
)
def test_a_past_is_moved_on_only_to_what_surely_lies_behind_it(
    stands: RecoveryPlan, asked: RecoveryPlan, *, is_before: bool
) -> None:
    assert lies_before(stands, asked, REACHED) is is_before


@pytest.mark.parametrize(
    ("wanted", "named_at", "counted_from"),
    [
        (Wanted(time=minutes(7)), None, minutes(7)),
        (Wanted(name="noon"), MADE_AT, MADE_AT),
        (Wanted(name="noon"), None, minutes(3)),
        (Wanted(lsn=LIES_AT), None, minutes(3)),
    ],
)
def test_forward_counts_from_the_moment_that_was_asked_for(
    wanted: Wanted, named_at: datetime | None, counted_from: datetime
) -> None:
    open_past = OpenPast(
        cluster="7",
        base="full",
        wanted=wanted,
        stands_at=minutes(3),
        named_at=named_at,
        host="/run",
        port=5432,
        user="postgres",
        database="tmi",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        twin=True,
    )
    assert open_past.moment == counted_from
