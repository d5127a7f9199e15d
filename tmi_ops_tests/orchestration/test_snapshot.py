"""The whole of the definitions as text, so that a change of what runs, when and beside what shows in review.

After an intended change: TMI_OPS_WRITE_SNAPSHOT=1 make test ARGS="-n 0 tmi_ops_tests/orchestration/test_snapshot.py"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dagster import AssetsDefinition, Definitions, JobDefinition

from tmi_ops.definitions import environment_definitions

SNAPSHOT = Path(__file__).with_name("definitions.production.txt")


def described(definitions: Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    repository = definitions.get_repository_def()
    yield "ASSETS: pool, what they follow, checks"
    pools = {
        key: definition.op.pool or "-"
        for definition in definitions.assets or ()
        if isinstance(definition, AssetsDefinition)
        for key in definition.keys
    }
    for key in sorted(graph.get_all_asset_keys()):
        yield f"{key.to_user_string()}  pool {pools[key]}"
        yield from (f"  after {parent.to_user_string()}" for parent in sorted(graph.get(key).parent_keys))
        yield from (f"  check {check.name}" for check in sorted(graph.get_check_keys_for_assets({key})))
    yield "\nJOBS: lane, longest run in seconds, assets or ops"
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            yield f"{job.name}  {job.tags['tmi_ops/lane']}  {job.tags['dagster/max_runtime']}"
            yield from (f"  {node}" for node in sorted(nodes(job)))
    yield "\nSCHEDULES: cron, zone, by default, job"
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        crons = schedule.cron_schedule
        cron = crons if isinstance(crons, str) else " | ".join(crons)
        yield (
            f"{schedule.name}  {cron}  {schedule.execution_timezone}  {schedule.default_status.value}  "
            f"{schedule.job_name}"
        )
    yield "\nSENSORS: seconds between looks, by default, jobs they may begin"
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        jobs = ", ".join(sorted(target.job_name for target in sensor.targets)) or "none"
        yield f"{sensor.name}  {sensor.minimum_interval_seconds}  {sensor.default_status.value}  {jobs}"


def nodes(job: JobDefinition) -> list[str]:
    keys = [key.to_user_string() for key in job.asset_layer.executable_asset_keys]
    return keys or [node.name for node in job.nodes]


def test_what_runs_when_and_beside_what_is_as_it_was_reviewed() -> None:
    text = "\n".join(described(environment_definitions("production"))) + "\n"
    if os.environ.get("TMI_OPS_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()
