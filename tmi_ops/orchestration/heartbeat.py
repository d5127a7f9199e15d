"""The heartbeat as an asset, its job, and a schedule whose tick writes it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from dagster import AssetSelection, Definitions, MetadataValue, asset

from tmi_ops.objectives.sharing import SharedReading
from tmi_ops.orchestration.in_tick import Done, Work
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.drill.chain import HeartbeatRow

JOB = "heartbeat"
LONGEST_RUN = timedelta(minutes=5)
# Dagster ends a tick after a minute.
BEAT_TIMEOUT_S = 20.0


def heartbeat_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/recovery/heartbeat`, its job and its schedule."""

    @asset(
        key=here.key("recovery", "heartbeat"),
        group_name="recovery",
        kinds={"postgres"},
        owners=OWNERS,
        pool=pool(here, "heartbeat"),
        description=here.for_people(
            "The heartbeat chain: rows in a schema of tmi_ops, each with the hash of the one before. A drill checks it "
            "to find out whether anything before its target is missing. Command: `tmi-ops heartbeat`."
        ),
    )
    @here.given
    def heartbeat(environment: Environment) -> Materialized:
        with failures_explained():
            written = _beat(environment)
        return _result(here, written)

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(heartbeat.key),
        description="Write a heartbeat into the database.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "heartbeat_within_the_rpo",
        job,
        here.timetable.heartbeat,
        "writes a heartbeat. Three or more within the RPO let a drill tell what is missing to within a third of it. "
        "To write more often, run `tmi-ops heartbeat --every 60` as a service.",
        turn=2,
        in_tick=_beating(here),
    )
    return Definitions(assets=[heartbeat], jobs=[job], schedules=[schedule])


def _beating(here: Protected) -> Work:
    """One at a time: a synchronous commit may wait long for the store, and goes on after the tick has given up."""
    beats: SharedReading[HeartbeatRow] = SharedReading()

    def work(environment: Environment) -> Done:
        written = beats.recent(here.name, lambda: _beat(environment), shared_for_s=0, budget_s=BEAT_TIMEOUT_S)
        return Done(f"heartbeat {written.id}", [_result(here, written)])

    return work


def _beat(environment: Environment) -> HeartbeatRow:
    from tmi_ops.drill.heartbeat import beat

    return beat(environment.settings_for(Purpose.HEARTBEAT).postgres)


def _result(here: Protected, written: HeartbeatRow) -> Materialized:
    from tmi_ops.postgres.wal_files import format_lsn

    return Materialized(
        asset_key=here.key("recovery", "heartbeat"),
        metadata={
            "heartbeat": MetadataValue.int(written.id),
            "written at": MetadataValue.timestamp(written.written_at),
            "LSN": MetadataValue.text(format_lsn(written.lsn)),
            "hash": MetadataValue.text(written.hash),
        },
    )
