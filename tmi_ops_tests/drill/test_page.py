"""The evidence page is self-contained, shows what an auditor needs, and escapes names."""

from __future__ import annotations

import re
from datetime import timedelta

from tmi_ops.drill.evidence import (
    Check,
    Copy,
    DrilledBackup,
    DrillTarget,
    Evidence,
    Window,
    WindowBase,
)
from tmi_ops.drill.page import evidence_page, phase_bars, window_marks
from tmi_ops.recovery.pages.templates import LEFT, RIGHT
from tmi_ops_tests.drill.chains import NOON, minute


def evidence(**changes: object) -> Evidence:
    facts: dict[str, object] = {
        "drill_id": "20261124T131000Z-drill-7f3a",
        "environment": "production",
        "outcome": "passed",
        "started_at": minute(70),
        "finished_at": minute(71),
        "host": "backup-1",
        "store": "s3://backups/tmi-ops",
        "database": "tmi",
        "system_identifier": "7711554964273702704",
        "source_version": "17.10",
        "programs_version": "17.10",
        "tmi_ops_version": "0.1.0",
        "backups": (
            DrilledBackup(
                backup_id="20261124T120000Z-base-0001",
                format="full",
                taken_at=NOON,
                size=123_456_789,
                manifest_sha256="a" * 64,
            ),
        ),
        "window": Window(
            earliest_at=NOON,
            newest_at=minute(69),
            newest_lsn="0/5000000",
            bases=(WindowBase(backup_id="20261124T120000Z-base-0001", format="full", taken_at=NOON),),
        ),
        "target": DrillTarget(text="2026-11-24 12:30:00 UTC", kind="time", chosen="at random", time=minute(30), seed=7),
        "disk_needed": 5_000_000_000,
        "copy_": Copy(
            lsn="0/4000000",
            last_commit_at=minute(30),
            stopped="before commit of transaction 7",
            timeline=2,
            restored_size=1,
            replayed_size=2,
            rows={"threats": 1234567},
        ),
        "phases": {"fetch": 30.0, "replay": 60.0, "verify": 10.0},
        "recovery_seconds": 90.0,
        "rto_seconds": 100.0,
        "rto_objective_seconds": 200.0,
        "rpo_seconds": 60.0,
        "rpo_objective_seconds": 900.0,
        "checks": (
            Check(name="recovery", outcome="passed", detail="Recovered to LSN 0/4000000."),
            Check(name="heartbeat", outcome="not run", detail="No heartbeat was written."),
            Check(name="rto", outcome="passed", detail="Recovered in 1 min 40 s."),
            Check(name="rpo", outcome="passed", detail="1 min old."),
        ),
        **changes,
    }
    return Evidence.model_validate(facts)


def test_it_shows_what_an_auditor_asks_for() -> None:
    page = evidence_page(evidence())
    for shown in (
        "PASSED",
        "20261124T131000Z-drill-7f3a",
        "backup-1",
        "s3://backups/tmi-ops",
        "20261124T120000Z-base-0001",
        "a" * 64,
        "123.5 MB",
        "1,234,567",
        "PostgreSQL 17.10",
        "2026-11-24 12:30:00 UTC",
        "seed 7",
        "1 min 40 s",
        "objective 15 min",
        "No heartbeat was written.",
    ):
        assert shown in page, shown


def test_it_fetches_nothing_from_anywhere() -> None:
    page = evidence_page(evidence())
    assert not re.search(r"<script|<link|<img|<iframe|src=|href=|@import|url\(", page)


def test_a_name_cannot_become_markup() -> None:
    target = DrillTarget(text="the restore point <script>x</script>", kind="name", chosen="asked for")
    page = evidence_page(evidence(target=target, database="<b>&"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;&amp;" in page


def test_a_failed_drill_gives_its_reasons_and_needs_no_copy() -> None:
    failed = evidence(
        outcome="failed",
        reasons=("Recovered to the target: base.tar.zst is damaged.",),
        copy_=None,
        target=DrillTarget(text="the end of the WAL", kind="latest", chosen="asked for"),
    )
    page = evidence_page(failed)
    assert "FAILED" in page
    assert "base.tar.zst is damaged" in page
    assert "Rows by table" not in page


def test_the_pictures_are_to_scale() -> None:
    marks = {mark.kind: mark.x for mark in window_marks(evidence())}
    assert marks["full"] == LEFT
    assert marks["began"] == RIGHT
    assert marks["target"] == LEFT + (RIGHT - LEFT) * (timedelta(minutes=30) / timedelta(minutes=70))
    bars = phase_bars(evidence())
    assert [bar.phase for bar in bars] == ["fetch", "replay", "verify"]
    assert bars[1].width == 2 * bars[0].width
    assert bars[-1].x + bars[-1].width == (LEFT + RIGHT) / 2  # the objective, twice as long, is the right end
