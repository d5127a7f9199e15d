"""What the status screen says, and how it stands in a terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.record import AlertRecord
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.status import exit_code
from tmi_ops.cli.status_facts import as_facts
from tmi_ops.cli.status_view import status_screen
from tmi_ops.health.record import LastAnswers
from tmi_ops.objectives.history import Worst
from tmi_ops.objectives.next_runs import Automatic, NextRun
from tmi_ops.objectives.status import Status
from tmi_ops_tests.objectives.facts import (
    BASE,
    DUMP,
    NOW,
    ago,
    drill,
    facts,
    reach,
    receiver,
    server,
    slot,
    without_server,
)
from tmi_ops_tests.objectives.statuses import ALL_DOWN, SICK, a_status

WELL = a_status()
BEHIND = a_status(facts(verified=reach(ago(minutes=40)), newest=reach(ago(minutes=40)), receiver=None))
UNVERIFIED = a_status(facts(verified=None, newest=reach(ago(seconds=5), verified=False), drills=(), failed=(DUMP,)))
NO_DATABASE = a_status(without_server(receiver=receiver(at_work=False)))
ILL = a_status(health=LastAnswers(answers=SICK))
NO_DATABASE_FOR_LONG = a_status(without_server(verified=reach(ago(hours=2)), newest=reach(ago(hours=2))))


def shown(status: Status, width: int = 120) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(status_screen(status))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def test_one_screen_tells_how_far_back_and_how_long() -> None:
    screen = shown(WELL)
    for said in (
        "✓ RPO  3 s",
        "of 15 min",
        "✓ RTO  8 min",
        "of 30 min",
        "last drill 8 min, 3 d ago",
        "Back to        2026-11-18 12:00:00 UTC (7 d ago), and any moment since",
        f"from {BASE} plus WAL, verified",
        "restored in 5 min",
        "✓ 0 B behind the server",
        "hourly health in 7 min",
        "47.0 GB in 4,190 objects: base 36.0 GB, WAL 9.0 GB, logical 2.0 GB",
        "Health         ✓ 1 unknown, 33 ok; checked 12 min ago",
        "Schema         ✓ matches what TMI needs; checked 12 min ago",
        "none open",
    ):
        assert said in screen
    assert "To do" not in screen
    assert len(screen.splitlines()) < 24


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("status", [WELL, BEHIND, UNVERIFIED, NO_DATABASE, ALL_DOWN, ILL])
def test_it_keeps_within_the_terminal(status: Status, width: int) -> None:
    lines = shown(status, width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) <= 40


def test_what_is_not_met_comes_with_its_reason_and_what_to_type() -> None:
    screen = shown(BEHIND)
    assert "✗ RPO  40 min" in screen
    assert "No later WAL is archived." in " ".join(screen.split())
    assert "→ catch up WAL: tmi-ops wal stream --catch-up" in screen


def test_what_is_not_proven_is_never_called_recoverable_without_saying_so() -> None:
    screen = shown(UNVERIFIED)
    assert "not verified" in screen
    assert "none: no backup has been verified" in screen
    assert f"Verification of {DUMP} failed" in screen
    assert "no drill yet" in screen


def test_with_the_database_down_the_rest_is_told() -> None:
    screen = shown(NO_DATABASE)
    assert "could not be queried: PostgreSQL could not be reached." in screen
    assert "✓ RPO  3 s" in screen
    assert "To do" not in screen


def test_with_dagster_down_it_says_that_it_could_not_be_asked() -> None:
    away = replace(WELL, automatic=Automatic(problem="Dagster's database could not be queried: connection refused"))
    assert "Next runs      Dagster's database could not be queried: connection refused" in shown(away)
    silent = Automatic(
        (NextRun("hourly_health", NOW + timedelta(hours=1)),), problem="Dagster's daemon has not reported"
    )
    assert "hourly health in 1 h. Dagster's daemon has not reported" in shown(replace(WELL, automatic=silent))


def test_with_everything_down_each_line_says_why() -> None:
    screen = shown(ALL_DOWN)
    for said in (
        "? RPO unknown",
        "could not be read: The store could not be reached.",
        "could not be queried: PostgreSQL could not be reached.",
        "Dagster's database could not be queried",
        "Alerts could not be read",
        "→ tmi-ops doctor",
    ):
        assert said in " ".join(screen.split())


def test_the_past_is_told_with_how_much_of_it_was_measured() -> None:
    assert "worst in 24 h 2 min (46% measured), in 30 d 2 min (2% measured)" in shown(WELL)
    assert WELL.recoverability is not None
    day = timedelta(days=1)

    def past(worst: Worst) -> str:
        return shown(replace(WELL, recoverability=replace(WELL.recoverability, worst_day=worst, worst_month=worst)))

    assert "in 24 h 9 min, in" in past(Worst(day, timedelta(minutes=9), day, timedelta(0)))
    assert "nothing verified for 3 h" in past(Worst(day, None, day, timedelta(hours=3)))
    assert "no earlier measurements" in past(Worst(day, timedelta(minutes=9), timedelta(0), timedelta(0)))


CODES = {
    "all is well": (WELL, 0),
    "a promise is breached": (BEHIND, 1),
    "nothing is proven": (UNVERIFIED, 1),
    "never drilled": (a_status(facts(drills=())), 1),
    "a drill that failed": (a_status(facts(drills=(drill(outcome="failed", sound=False),))), 1),
    "a slot about to be lost": (a_status(facts(server=server(slot=slot(status="unreserved")))), 1),
    "the database is down, and all else is well": (NO_DATABASE, 2),
    "the database is down for longer than the RPO": (NO_DATABASE_FOR_LONG, 1),
    "the store is down": (ALL_DOWN, 2),
    "only health is critical, which tmi-ops health tells by its exit code": (ILL, 0),
    "Dagster is down": (a_status(automatic=Automatic(problem="Dagster's database could not be queried")), 0),
}


@pytest.mark.parametrize(("status", "code"), CODES.values(), ids=CODES.keys())
def test_the_exit_code(status: Status, code: int) -> None:
    assert exit_code(status) == code


def test_the_json_says_the_same_in_numbers() -> None:
    said = as_facts(WELL)
    assert (said["standing"], said["rpo"]["seconds"], said["rpo"]["objective_seconds"]) == ("met", 3.0, 900.0)
    assert said["rpo"]["worst_24_h"] == {
        "seconds": 120.0,
        "measured_seconds": 39600.0,
        "nothing_proven_seconds": 0.0,
    }
    assert (said["rto"]["seconds"], said["rto"]["basis"], said["rto"]["last_drill"]["seconds"]) == (
        480,
        "measured",
        480,
    )
    assert said["storage"]["total"]["objects"] == 4190
    assert said["recoverable"]["proven"]["backup_id"] == BASE
    assert as_facts(BEHIND)["rpo"]["cures"][0]["command"] == "tmi-ops wal stream --catch-up"
    down = as_facts(ALL_DOWN)
    assert (down["rpo"], down["alerts"], down["problems"]["store"]) == (None, None, "The store could not be reached.")


def test_what_was_critical_at_the_last_look_wants_doing_and_says_how_old_it_is() -> None:
    screen = shown(ILL)
    for said in (
        "Health         ✗ 2 critical, 2 warning, 1 unknown, 29 ok; checked 40 min ago",
        "Schema         ✗ 1 error, 0 warnings: 1 missing column; checked 12 min ago",
        "connections, 12 min ago: 96 of 97 connections in use. end idle sessions",
        "→ tmi-ops health --probe connections",
        "Schema, 12 min ago: threats.name: The column is missing.",
        "→ tmi-ops check",
        "Health warnings, 40 min ago: slow_queries, table_bloat",
    ):
        assert said in screen
    drift = alerted("schema-drift", "The schema is not what TMI needs")
    assert "The schema is not what" not in shown(replace(ILL, alerts=(drift,)))
    assert "The schema is not what" in shown(replace(WELL, alerts=(drift,)))


def test_what_was_never_read_or_cannot_be_read_is_not_called_well() -> None:
    never = shown(replace(WELL, health=None))
    assert "never checked: tmi-ops health" in never
    assert "never checked: tmi-ops check" in never
    assert "unknown, the last results are in the store" in shown(ALL_DOWN)
    assert as_facts(replace(WELL, health=None))["health"] is None
    checked = shown(replace(WELL, health=LastAnswers(answers={"schema_findings": SICK["schema_findings"]})))
    assert "never checked: tmi-ops health" in checked
    assert "Schema         ✗ 1 error" in checked
    some = {name: SICK[name] for name in ("schema_findings", "connections")}
    assert "✗ 2 critical, 32 not probed" in shown(replace(WELL, health=LastAnswers(answers=some)))


def test_the_json_has_every_probe() -> None:
    health = as_facts(ILL)["health"]
    assert (health["status"], health["counts"]["critical"], health["oldest_at"]) == (
        "critical",
        2,
        ago(minutes=40).isoformat(),
    )
    assert health["probes"][0] == {
        "name": "connections",
        "status": "critical",
        "summary": "96 of 97 connections in use",
        "advice": "end idle sessions",
        "at": ago(minutes=12).isoformat(),
    }


def alerted(key: str, summary: str) -> AlertRecord:
    alert = Alert(
        key=key,
        severity=Severity.CRITICAL,
        summary=summary,
        at_risk="What was written since.",
        since=ago(minutes=20),
        done="Nothing.",
        to_do="look at it",
    )
    return AlertRecord(environment="production", alert=alert, opened_at=ago(minutes=20), seen_at=ago(minutes=4))


def test_an_alert_about_what_was_judged_just_now_is_counted_and_not_told_as_it_was() -> None:
    open_alerts = (alerted("rpo", "The recovery point objective is breached"), alerted("drift", "A column is missing"))
    screen = shown(a_status(alerts=open_alerts))
    assert "2 open" in screen
    assert "is breached" not in screen
    assert "A column is missing. To do: look at it" in screen
    assert "is breached. To do: look at it" in shown(replace(ALL_DOWN, alerts=open_alerts))
