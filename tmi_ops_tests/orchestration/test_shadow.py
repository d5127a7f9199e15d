"""The shadow's word in Dagster: carried over once, and told anew when the verdict changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization

from tmi_ops.orchestration.shadow import REPLAYS, SOUND, looked_at
from tmi_ops.shadow.report import KnownReport, RollingCheck, ShadowReport, Trouble

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
KEY = AssetKey(["development", "recovery", "shadow"])


def known(age: timedelta = timedelta(seconds=2), **changes: Any) -> KnownReport:
    given = {
        "name": "standby-1",
        "host": "one",
        "environment": "development",
        "began_at": NOON,
        "written_at": NOON,
        "every_s": 15.0,
        "state": "level",
        "verified_to": NOON - timedelta(seconds=4),
        "replayed_lsn": "0/5000000",
        "timeline": 1,
    }
    return KnownReport(ShadowReport.model_validate(given | changes), age)


def look(report: KnownReport | None, cursor: str | None) -> tuple[str, list[str], dict[str, bool]]:
    written, result, events = looked_at(KEY, report, cursor)
    materialized = [event.asset_key.path[-1] for event in events if isinstance(event, AssetMaterialization)]
    checks = {event.check_name: event.passed for event in events if isinstance(event, AssetCheckEvaluation)}
    return f"{written}|{result}", materialized, checks


def test_a_report_is_carried_over_once_and_a_verdict_when_it_changes() -> None:
    cursor, materialized, checks = look(known(), None)
    assert (materialized, checks) == (["shadow"], {REPLAYS: True, SOUND: True})
    again, materialized, checks = look(known(), cursor)
    assert (again, materialized, checks) == (cursor, [], {})
    later = known(written_at=NOON + timedelta(minutes=1))
    cursor, materialized, checks = look(later, cursor)
    assert (materialized, checks) == (["shadow"], {})
    hole = Trouble(kind="hole", what="It is missing.", since=NOON)
    cursor, materialized, checks = look(known(state="stopped", troubles=(hole,)), cursor)
    assert (materialized, checks) == (["shadow"], {REPLAYS: False, SOUND: True})
    bad = RollingCheck(name="amcheck", outcome="failed", detail="An index is not sound.", at=NOON)
    _, _, checks = look(known(checks=(bad,)), cursor)
    assert checks == {REPLAYS: True, SOUND: False}


def test_a_silent_shadow_is_not_materialized_so_that_it_turns_stale_and_its_check_fails() -> None:
    cursor, _, _ = look(known(), None)
    _, materialized, checks = look(known(timedelta(minutes=5)), cursor)
    assert (materialized, checks) == ([], {REPLAYS: False, SOUND: True})
    assert look(None, cursor) == (cursor, [], {})
