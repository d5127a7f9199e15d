"""The achieved RPO: from facts to a verdict, a reason and the cheapest cure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.standing import Standing
from tmi_ops.settings import Objectives
from tmi_ops_tests.objectives.facts import (
    BASE,
    DEVELOPMENT,
    DUMP,
    NOW,
    PRODUCTION,
    ago,
    dump,
    facts,
    reach,
    receiver,
    server,
    slot,
    without_server,
)

AT_RISK, LATE = reach(ago(minutes=12)), reach(ago(minutes=40))
NEWER_UNVERIFIED = reach(ago(seconds=5), verified=False)
OLD_DUMP = reach(ago(hours=20), "logical backup")
HOLE = "000000010000000000000009"

CASES = {
    "a receiver at work": (facts(), PRODUCTION, Standing.MET, None, "3 s ago"),
    "nothing received lately, but the server wrote nothing": (
        facts(verified=reach(NOW), newest=reach(NOW), receiver=receiver(at_work=False, age=timedelta(hours=5))),
        PRODUCTION,
        Standing.MET,
        None,
        "Latest verified recovery point: now",
    ),
    "three quarters of the RPO": (
        facts(verified=reach(ago(minutes=11, seconds=15)), newest=reach(ago(minutes=11, seconds=15)), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "No later WAL is archived",
    ),
    "exactly the RPO": (
        facts(verified=reach(ago(minutes=15)), newest=reach(ago(minutes=15)), receiver=receiver(at_work=False)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "No receiver is running",
    ),
    "a receiver that does not keep up": (
        facts(verified=LATE, newest=LATE),
        PRODUCTION,
        Standing.BREACHED,
        Action.START_RECEIVER,
        "running but does not keep up",
    ),
    "the database is down": (
        without_server(verified=AT_RISK, newest=AT_RISK, receiver=receiver(at_work=False)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.REACH_DATABASE,
        "cannot be queried",
    ),
    "a hole behind the only base": (
        facts(
            verified=reach(ago(minutes=40), missing=HOLE),
            newest=reach(ago(minutes=40), missing=HOLE),
        ),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_INCREMENTAL,
        f"{HOLE} is missing",
    ),
    "a hole, and behind it a new base that nobody has proven": (
        facts(verified=reach(ago(minutes=40), missing=HOLE), newest=NEWER_UNVERIFIED),
        PRODUCTION,
        Standing.BREACHED,
        Action.RUN_DRILL,
        f"{HOLE} is missing",
    ),
    "a base and WAL that no drill has proven, beside an old dump that is proven": (
        facts(verified=OLD_DUMP, newest=NEWER_UNVERIFIED),
        PRODUCTION,
        Standing.BREACHED,
        Action.RUN_DRILL,
        "is not verified",
    ),
    "a base that no drill has proven, and nothing else": (
        facts(verified=None, newest=NEWER_UNVERIFIED, drills=()),
        PRODUCTION,
        Standing.BREACHED,
        Action.RUN_DRILL,
        "No backup is verified yet",
    ),
    "a dump that nobody has proven": (
        facts(verified=None, newest=reach(ago(hours=1), "logical backup", verified=False), way=None, drills=()),
        DEVELOPMENT,
        Standing.BREACHED,
        Action.VERIFY_BACKUP,
        "No backup is verified yet",
    ),
    "the slot is lost": (
        facts(verified=LATE, newest=LATE, server=server(slot=slot(status="lost")), receiver=receiver(at_work=False)),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_INCREMENTAL,
        "invalidated the replication slot",
    ),
    "dumps alone, within a day": (
        facts(verified=reach(ago(hours=10), "logical backup"), newest=reach(ago(hours=10), "logical backup"), way=None),
        DEVELOPMENT,
        Standing.MET,
        None,
        "10 h ago",
    ),
    "dumps alone, for a short RPO": (
        facts(verified=reach(ago(hours=10), "logical backup"), newest=reach(ago(hours=10), "logical backup"), way=None),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "10 h ago",
    ),
    "dumps alone, a day apart": (
        facts(verified=OLD_DUMP, newest=OLD_DUMP, way=None, logical=(dump(ago(hours=20)), dump(ago(hours=44)))),
        DEVELOPMENT,
        Standing.AT_RISK,
        Action.BACK_UP_LOGICAL,
        "20 h ago",
    ),
    "nothing at all": (
        facts(verified=None, newest=None, way=None, drills=(), receiver=None),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "no backup",
    ),
    "nothing at all, where dumps are enough": (
        facts(verified=None, newest=None, way=None, drills=(), receiver=None),
        DEVELOPMENT,
        Standing.BREACHED,
        Action.BACK_UP_LOGICAL,
        "no backup",
    ),
    "nothing but what a proof has found bad": (
        facts(verified=None, newest=None, way=None, failed=(DUMP,)),
        DEVELOPMENT,
        Standing.BREACHED,
        Action.BACK_UP_LOGICAL,
        f"{DUMP} failed verification",
    ),
    "nothing at all, and no database": (
        without_server(verified=None, newest=None, way=None, drills=(), receiver=None),
        PRODUCTION,
        Standing.BREACHED,
        Action.REACH_DATABASE,
        "no backup",
    ),
    "the newest moment lies in the future": (
        without_server(verified=reach(NOW + timedelta(minutes=7)), newest=reach(NOW + timedelta(minutes=7))),
        PRODUCTION,
        Standing.UNKNOWN,
        Action.SET_CLOCKS,
        "7 min in the future",
    ),
}


@pytest.mark.parametrize(("found", "objectives", "standing", "cure", "words"), CASES.values(), ids=CASES.keys())
def test_the_standing_its_reason_and_the_cheapest_cure(
    found: RecoverabilityFacts, objectives: Objectives, standing: Standing, cure: Action | None, words: str
) -> None:
    reading = judge_rpo(found, objectives)
    assert (reading.standing, reading.cures[0].action if reading.cures else None) == (standing, cure)
    assert words in reading.reason
    assert reading.objective == objectives.rpo


def test_only_what_is_proven_counts_and_what_is_not_is_told_beside_it() -> None:
    reading = judge_rpo(facts(verified=OLD_DUMP, newest=NEWER_UNVERIFIED), PRODUCTION)
    assert (reading.value, reading.unverified) == (timedelta(hours=20), timedelta(seconds=5))
    assert judge_rpo(facts(), PRODUCTION).unverified is None


def test_a_server_whose_clock_is_ahead_is_read_by_its_own_clock() -> None:
    ahead = server(clock_ahead=timedelta(minutes=5))
    newest = reach(NOW + timedelta(minutes=4))
    reading = judge_rpo(facts(server=ahead, verified=newest, newest=newest), PRODUCTION)
    assert (reading.standing, reading.value) == (Standing.MET, timedelta(minutes=1))


def test_a_moment_a_little_in_the_future_is_now() -> None:
    newest = reach(NOW + timedelta(seconds=20))
    assert judge_rpo(facts(verified=newest, newest=newest), PRODUCTION).value == timedelta(0)


def test_what_runs_without_a_person_is_told_from_what_does_not() -> None:
    stuck = judge_rpo(facts(verified=LATE, newest=LATE), PRODUCTION)
    assert next(cure.action for cure in stuck.cures if cure.action.is_automatic) is Action.BACK_UP_INCREMENTAL
    down = judge_rpo(CASES["the database is down"][0], PRODUCTION)
    assert down.cures
    assert not [cure for cure in down.cures if cure.action.is_automatic]


def test_a_cure_says_what_to_type() -> None:
    unverified = judge_rpo(CASES["a dump that nobody has proven"][0], DEVELOPMENT)
    assert unverified.cures[0].describe() == f"verify a backup: tmi-ops verify {DUMP}"
    drill = judge_rpo(CASES["a base that no drill has proven, and nothing else"][0], PRODUCTION).cures[0]
    assert drill.describe() == f"run a drill, which verifies {BASE}: tmi-ops drill --latest"


def test_dumps_that_come_too_seldom_want_a_shorter_interval() -> None:
    reading = judge_rpo(CASES["dumps alone, a day apart"][0], DEVELOPMENT)
    assert [cure.action for cure in reading.cures] == [Action.BACK_UP_LOGICAL, Action.SHORTEN_INTERVAL]
    assert "now 24 h" in reading.cures[1].describe()


def test_two_lines_that_live_are_a_risk_though_the_objective_is_met() -> None:
    reading = judge_rpo(replace(facts(), ambiguous="2 lines of the cluster live."), PRODUCTION)
    assert judge_rpo(facts(), PRODUCTION).standing is Standing.MET
    assert reading.standing is Standing.AT_RISK
    assert "2 lines" in reading.reason
    assert [cure.action for cure in reading.cures] == [Action.NAME_LINE]


@pytest.mark.parametrize("case", ["a base that no drill has proven, and nothing else", "dumps alone, a day apart"])
def test_two_lines_are_named_whatever_else_is_amiss(case: str) -> None:
    without = judge_rpo(CASES[case][0], PRODUCTION)
    reading = judge_rpo(replace(CASES[case][0], ambiguous="2 lines of the cluster live."), PRODUCTION)
    assert reading.standing is without.standing is not Standing.MET
    assert reading.reason == f"{without.reason} 2 lines of the cluster live."
    assert [cure.action for cure in reading.cures] == [*(cure.action for cure in without.cures), Action.NAME_LINE]


def test_a_break_is_cured_by_a_base_backup_that_begins_behind_it() -> None:
    """An incremental one would build upon what lies before it."""
    behind = replace(reach(ago(hours=3)), broken="At 0/3000110 the server was restarted with wal_level = minimal.")
    reading = judge_rpo(facts(verified=behind, newest=behind), PRODUCTION)
    assert reading.standing is Standing.BREACHED
    assert "minimal" in reading.reason
    assert [cure.action for cure in reading.cures] == [Action.BACK_UP_BASE, Action.RUN_DRILL]
