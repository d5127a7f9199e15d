"""The guards tell, too, of what should run by itself and does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from tmi_ops.alerts.service import AlertService
from tmi_ops.automation.judging import TICK_GRACE
from tmi_ops.checks.finding import Finding, Severity
from tmi_ops.objectives.acting import Decision, Memory, Topic
from tmi_ops.objectives.standing import Standing
from tmi_ops.orchestration.guarding import remembered, stuck_automation, tell
from tmi_ops.orchestration.protected import protected
from tmi_ops.settings import Settings
from tmi_ops_tests.webhook import webhook

STUCK = (Finding(Severity.CRITICAL, "base_backup", "run 01234567 of base_backup has waited for 1 d"),)
WELL = Decision(Memory(standing=Standing.MET), "All is archived.", Standing.MET)


def looked(before: Memory, now: datetime, *, is_stuck: bool) -> Decision:
    return remembered(WELL, before, now, is_stuck=is_stuck)


def test_what_is_stuck_is_remembered_from_look_to_look_and_forgotten_when_it_moves() -> None:
    now = datetime.now(UTC)
    first = looked(Memory(), now, is_stuck=True)
    second = looked(first.memory, now + timedelta(minutes=5), is_stuck=True)
    over = looked(second.memory, now + timedelta(minutes=10), is_stuck=False)
    ahead = looked(Memory(stuck_since=now + timedelta(days=365)), now, is_stuck=True)
    assert [one.memory.stuck_since for one in (first, second, over, ahead)] == [now, now, None, now]


@pytest.mark.parametrize(("topic", "pings"), [(Topic.RPO, 1), (Topic.RTO, 0)])
def test_the_outside_monitor_hears_that_all_is_well_only_where_nothing_is_stuck(
    as_variables: Settings, topic: Topic, pings: int
) -> None:
    with webhook() as monitor:
        address = SecretStr(f"http://127.0.0.1:{monitor.port}/alive")
        alerts = as_variables.alerts.model_copy(update={"heartbeat_url": address})
        settings = as_variables.model_copy(update={"alerts": alerts})
        tell(settings, topic, WELL, STUCK)
        assert monitor.requests == []
        tell(settings, topic, WELL)
        assert len(monitor.requests) == pings


def test_what_stays_stuck_is_an_alert_and_a_daemon_that_has_just_begun_is_given_time(as_variables: Settings) -> None:
    now = datetime.now(UTC)

    def told(since: datetime, stuck: tuple[Finding, ...] = STUCK) -> list[tuple[str, Severity, bool]]:
        tell(as_variables, Topic.RTO, looked(Memory(stuck_since=since), now, is_stuck=bool(stuck)), stuck)
        return [
            (record.alert.key, record.alert.severity, record.is_open) for record in AlertService(as_variables).records()
        ]

    assert told(now - TICK_GRACE / 2) == []
    assert told(now - TICK_GRACE * 2) == [("automation", Severity.CRITICAL, True)]
    assert told(now, ()) == [("automation", Severity.CRITICAL, False)]


def test_records_that_cannot_be_asked_are_stuck_and_without_records_nobody_can_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DAGSTER_PG_HOST", raising=False)
    assert stuck_automation(protected("development")) == ()
    monkeypatch.setenv("DAGSTER_PG_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGSTER_PG_PORT", "1")
    (finding,) = stuck_automation(protected("development"))
    assert finding.severity is Severity.CRITICAL
