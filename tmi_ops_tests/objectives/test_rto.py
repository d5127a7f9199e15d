"""The forecast of a recovery's time: from drills' speeds and today's sizes to a verdict and the cheapest cure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.facts import LogicalBackup, RecoverabilityFacts
from tmi_ops.objectives.rto import forecast_phases, forecast_rto
from tmi_ops.objectives.standing import Standing
from tmi_ops.settings import Objectives
from tmi_ops.text import format_duration
from tmi_ops_tests.objectives.facts import (
    DEVELOPMENT,
    GB,
    MB,
    PRODUCTION,
    ago,
    drill,
    dump,
    facts,
    server,
    way,
    without_server,
)

SLOW_FILES = drill(phases={**drill().phases, "verify": 3600.0})

CASES = {
    "as the last drill measured it": (facts(), PRODUCTION, Standing.MET, None, "would take 8 min"),
    "much WAL since the base": (
        facts(way=way(replayed=12 * GB)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.BACK_UP_INCREMENTAL,
        "The longest phase is replay (24 min)",
    ),
    "too much WAL since the base": (
        facts(way=way(replayed=15 * GB)),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_INCREMENTAL,
        "The longest phase is replay (30 min)",
    ),
    "too much WAL, on a server without incremental backups": (
        facts(way=way(replayed=15 * GB), server=server(version="16.4")),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "replay",
    ),
    "a chain so long that fetching it takes too long": (
        facts(way=way(fetched=15 * GB, chain_length=9)),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "The longest phase is",
    ),
    "files that take too long by themselves": (
        facts(drills=(SLOW_FILES,), way=way(replayed=0)),
        PRODUCTION,
        Standing.BREACHED,
        None,
        "A new base backup would not help",
    ),
    "too much WAL, and no database to back up": (
        without_server(way=way(replayed=15 * GB)),
        PRODUCTION,
        Standing.BREACHED,
        Action.REACH_DATABASE,
        "replay",
    ),
    "no drill yet": (facts(drills=()), DEVELOPMENT, Standing.UNKNOWN, Action.RUN_DRILL, "No drill has measured it"),
    "no drill yet, and too long at assumed speeds": (
        facts(drills=(), way=way(replayed=100 * GB)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.RUN_DRILL,
        "at assumed speeds",
    ),
    "the last drill failed": (
        facts(drills=(drill(outcome="failed", sound=False, reasons=("Heartbeat chain: 1 beat is missing.",)), drill())),
        PRODUCTION,
        Standing.AT_RISK,
        Action.RUN_DRILL,
        "The last drill failed: Heartbeat chain: 1 beat is missing",
    ),
    "the last drill found a sound copy and missed an objective": (
        facts(drills=(drill(outcome="failed", reasons=("Recovery point objective: too old.",)),)),
        PRODUCTION,
        Standing.MET,
        None,
        "would take 8 min",
    ),
    "the last drill is long ago": (
        facts(drills=(drill(at=ago(days=9)),)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.RUN_DRILL,
        "The last drill was 9 days ago",
    ),
    "dumps alone, proven": (
        facts(way=None, drills=(), logical=(dump(ago(hours=1), database_size=2 * GB), dump(ago(hours=25)))),
        DEVELOPMENT,
        Standing.MET,
        None,
        "would take 2 min",
    ),
    "dumps alone, grown since their proof": (
        facts(
            way=None, drills=(), logical=(dump(ago(hours=1), "not proven", database_size=20 * GB), dump(ago(hours=25)))
        ),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "would take 40 min",
    ),
    "dumps alone, never proven": (
        facts(way=None, drills=(), logical=(dump(ago(hours=1), "not proven"),)),
        DEVELOPMENT,
        Standing.UNKNOWN,
        Action.VERIFY_BACKUP,
        "No verification has measured it",
    ),
    "nothing at all": (
        facts(way=None, drills=(), logical=(dump(ago(hours=1), "failed"),)),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_BASE,
        "nothing to restore from",
    ),
}


@pytest.mark.parametrize(("found", "objectives", "standing", "cure", "words"), CASES.values(), ids=CASES.keys())
def test_the_standing_its_reason_and_the_cheapest_cure(
    found: RecoverabilityFacts, objectives: Objectives, standing: Standing, cure: Action | None, words: str
) -> None:
    forecast = forecast_rto(found, objectives)
    assert (forecast.standing, forecast.cures[0].action if forecast.cures else None) == (standing, cure)
    assert words in forecast.reason


def test_each_phase_grows_with_what_it_moves() -> None:
    measured = {phase.phase: phase.seconds for phase in forecast_rto(facts(), PRODUCTION).phases}
    doubled = way(fetched=2 * GB, full=2 * GB, cluster_size=8 * GB, replayed=2 * GB)
    twice = {phase.phase: phase.seconds for phase in forecast_rto(facts(way=doubled), PRODUCTION).phases}
    assert measured == {**drill().phases}
    for phase in ("fetch", "extract", "check files", "replay", "sync", "verify"):
        assert twice[phase] == pytest.approx(2 * measured[phase])
    for phase in ("plan", "prepare", "promote", "start"):
        assert twice[phase] == measured[phase]


def test_a_chain_is_combined_and_a_full_backup_is_not() -> None:
    full = [phase.phase for phase in forecast_rto(facts(), PRODUCTION).phases]
    chain = [phase.phase for phase in forecast_rto(facts(way=way(chain_length=2)), PRODUCTION).phases]
    assert "combine" not in full
    assert "combine" in chain


def test_a_drill_that_moved_next_to_nothing_tells_no_speed() -> None:
    """Of 1 MB replayed in 3 s nobody may conclude that 1 GB takes 50 minutes."""
    small = drill(replayed=MB, phases={**drill().phases, "replay": 3.0})
    (replay,) = (one for one in forecast_rto(facts(drills=(small,)), PRODUCTION).phases if one.phase == "replay")
    assert replay.seconds == pytest.approx(3 + (GB - MB) / 20_000_000)
    assert replay.basis == "measured in part"
    older = (small, drill())
    (replay,) = (one for one in forecast_rto(facts(drills=older), PRODUCTION).phases if one.phase == "replay")
    assert (replay.seconds, replay.basis) == (pytest.approx(120.0), "measured")


def test_the_last_drill_is_told_beside_the_forecast() -> None:
    forecast = forecast_rto(facts(), PRODUCTION)
    assert forecast.last_drill is not None
    assert (forecast.value, forecast.last_drill.rto) == (timedelta(minutes=8), timedelta(minutes=8))
    assert forecast.basis == "measured"
    assert forecast_rto(facts(drills=()), PRODUCTION).basis == "assumed"


def test_a_drill_counts_that_restored_a_sound_cluster_and_no_other() -> None:
    for one in (drill(restored=0), drill(sound=False)):
        assert forecast_rto(facts(drills=(one,)), PRODUCTION).basis == "assumed"


def test_phases_that_move_nothing_make_no_forecast_a_measured_one() -> None:
    quick = {name: drill().phases[name] for name in ("plan", "prepare", "promote", "start")}
    assert forecast_rto(facts(drills=(drill(phases=quick),)), PRODUCTION).basis == "assumed"


@pytest.mark.parametrize(
    "backup", [dump(ago(hours=1), "not proven", verify=timedelta(minutes=1)), dump(ago(hours=1), verify=None)]
)
def test_a_dump_is_measured_by_its_proof_alone(backup: LogicalBackup) -> None:
    assert forecast_rto(facts(way=None, drills=(), logical=(backup,)), PRODUCTION).basis == "assumed"


def test_after_an_incremental_backup_one_more_link_is_fetched_and_combined() -> None:
    long = way(replayed=15 * GB)
    after = replace(long, replayed=0, chain_length=long.chain_length + 1, fetched=int(long.fetched * 1.1))
    seconds = sum(phase.seconds for phase in forecast_phases(after, [drill()]))
    cure = forecast_rto(facts(way=long), PRODUCTION).cures[0]
    assert (cure.action, cure.detail) == (
        Action.BACK_UP_INCREMENTAL,
        f"after which a recovery would take {format_duration(seconds)}",
    )
