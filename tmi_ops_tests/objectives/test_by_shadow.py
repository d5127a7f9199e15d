"""What a shadow's word changes of RPO and RTO."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tmi_ops.objectives.by_shadow import counted, problems_of, promotion_of, read_shadow
from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.facts import ShadowReading
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.rto import forecast_rto
from tmi_ops.objectives.standing import Standing
from tmi_ops.shadow.report import KnownReport, RollingCheck, ShadowReport, Trouble
from tmi_ops_tests.objectives.facts import BASE, NOW, PRODUCTION, ago, facts, reach, way

SEGMENT = "000000010000000000000005"


def shadow(**changes: Any) -> ShadowReading:
    given: dict[str, Any] = {
        "name": "standby-1",
        "host": "one",
        "backup_id": BASE,
        "age": timedelta(seconds=2),
        "verified_to": ago(seconds=4),
        "has_been_level": True,
    }
    return ShadowReading(**given | changes)


def stopped(**changes: Any) -> ShadowReading:
    given = {"verified_to": ago(minutes=2), "stopped": "It is missing.", "stopped_since": ago(minutes=1)}
    return shadow(**given | changes)


def test_what_the_shadow_replayed_is_proven_and_no_more() -> None:
    unverified = reach(ago(seconds=1), verified=False)
    told = counted(None, unverified, way(), shadow())
    assert told.verified is not None
    assert (told.verified.at, told.verified.shown_by) == (ago(seconds=4), "shadow")
    assert told.newest is unverified
    by_drill = reach(ago(seconds=1))
    told = counted(by_drill, by_drill, way(), shadow(verified_to=ago(minutes=3)))
    assert told.verified is not None
    assert told.verified.at == ago(minutes=3), "it counts what was replayed"


def test_until_it_was_level_once_what_a_drill_proved_counts_no_less() -> None:
    by_drill = reach(ago(seconds=1))
    young = shadow(verified_to=ago(hours=3), has_been_level=False)
    assert counted(by_drill, by_drill, way(), young).verified is by_drill
    told = counted(None, by_drill, way(), young)
    assert told.verified is not None
    assert told.verified.at == ago(hours=3)


def test_without_a_shadow_or_with_a_damaged_one_nothing_changes() -> None:
    by_drill = reach(ago(seconds=1))
    for one in (None, shadow(damage="A page is bad.")):
        told = counted(by_drill, by_drill, way(), one)
        assert (told.verified, told.newest) == (by_drill, by_drill)


def test_a_stopped_shadow_shows_that_the_wal_leads_no_further_until_there_is_a_base_behind_the_place() -> None:
    by_drill = reach(ago(seconds=1))
    told = counted(by_drill, by_drill, way(), stopped(missing=SEGMENT))
    assert told.verified is not None
    assert (told.verified.at, told.verified.missing) == (ago(minutes=2), SEGMENT)
    assert told.newest == told.verified
    behind = way(consistent_at=ago(seconds=30), backup_id="20261125T115930Z-base-bbbb")
    newer = replace(by_drill, verified=False, backup_id=behind.backup_id)
    told = counted(by_drill, newer, behind, stopped(missing=SEGMENT))
    assert told.newest is newer
    assert told.verified is not None
    assert told.verified.at == ago(minutes=2)
    verified = replace(newer, verified=True)
    assert counted(verified, verified, behind, stopped()).verified is verified
    later = reach(ago(seconds=90), "logical backup")
    assert counted(by_drill, by_drill, way(), stopped()).verified != later
    assert counted(later, by_drill, way(), stopped()).verified is later, "a dump needs no WAL"


def judged(reading: ShadowReading) -> Any:
    by_drill = reach(ago(seconds=1))
    told = counted(by_drill, by_drill, way(), reading)
    return judge_rpo(facts(verified=told.verified, newest=told.newest, shadow=reading), PRODUCTION)


def test_the_achieved_rpo_is_counted_from_what_was_replayed() -> None:
    found = judged(shadow())
    assert (found.standing, found.value) == (Standing.MET, timedelta(seconds=4))
    assert "replayed by the shadow standby-1" in found.reason


def test_a_stopped_shadow_puts_the_rpo_at_risk_at_once_with_the_cheapest_cure() -> None:
    found = judged(stopped(missing=SEGMENT))
    assert found.standing is Standing.AT_RISK
    assert [cure.action for cure in found.cures] == [Action.BACK_UP_INCREMENTAL]
    assert "It is missing." in found.reason
    found = judged(stopped())
    assert [cure.action for cure in found.cures] == [Action.BACK_UP_BASE]
    found = judged(stopped(verified_to=ago(minutes=20), missing=SEGMENT))
    assert found.standing is Standing.BREACHED
    assert [cure.action for cure in found.cures] == [Action.BACK_UP_INCREMENTAL]


def test_promoting_a_shadow_is_the_recovery_once_it_was_measured() -> None:
    by_files = forecast_rto(facts(), PRODUCTION).value
    assert forecast_rto(facts(shadow=shadow()), PRODUCTION).value == by_files, "nobody measured it"
    found = forecast_rto(facts(shadow=shadow(promotion=timedelta(seconds=6))), PRODUCTION)
    assert (found.value, found.standing, found.basis) == (timedelta(seconds=6), Standing.MET, "measured")
    assert promotion_of(facts(shadow=shadow(promotion=timedelta(seconds=6), behind=40_000_000))) == timedelta(seconds=8)
    for other in (stopped(promotion=timedelta(seconds=6)), shadow(damage="x"), shadow(has_been_level=False), None):
        assert promotion_of(facts(shadow=other)) is None


def report(age: timedelta = timedelta(seconds=2), **changes: Any) -> KnownReport:
    given = {
        "name": "standby-1",
        "host": "one",
        "environment": "production",
        "system_identifier": "7",
        "backup_id": BASE,
        "began_at": NOW,
        "written_at": NOW,
        "every_s": 15.0,
        "state": "level",
        "verified_to": ago(seconds=4),
        "has_been_level": True,
    }
    return KnownReport(ShadowReport.model_validate(given | changes), age)


def test_a_report_that_is_stale_does_not_count_and_is_told_of() -> None:
    fresh, stale = report(), report(timedelta(minutes=12))
    found = read_shadow([fresh], "7")
    assert found is not None
    assert found.verified_to == ago(seconds=4)
    assert read_shadow([stale], "7") is None
    assert read_shadow([fresh], None) is None
    assert problems_of([fresh], "7") == []
    (problem,) = problems_of([stale], "7")
    assert "not reported for 12 min" in problem
    assert problems_of([report(timedelta(minutes=12), state="ended")], "7") == []
    assert problems_of([report(timedelta(minutes=12), system_identifier="8")], "7") == []


def test_what_stops_it_and_what_it_found_go_with_its_word() -> None:
    hole = Trouble(kind="hole", what="It is missing.", segment=SEGMENT, lsn="0/5000000", since=ago(minutes=1))
    found = read_shadow([report(state="stopped", troubles=(hole,))], "7")
    assert found is not None
    assert (found.stopped, found.missing) == ("It is missing.", SEGMENT)
    splice = hole.model_copy(update={"kind": "splice"})
    found = read_shadow([report(state="stopped", troubles=(splice,))], "7")
    assert found is not None
    assert (found.stopped, found.missing) == ("It is missing.", None)
    bad = RollingCheck(name="page_checksums", outcome="failed", detail="A page is bad.", at=NOW)
    found = read_shadow([report(checks=(bad,))], "7")
    assert found is not None
    assert found.damage == "A page is bad."
    assert any("A page is bad." in one for one in problems_of([report(checks=(bad,))], "7"))
