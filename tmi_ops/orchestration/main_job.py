"""The main job: from any schema to a verified backup."""

from __future__ import annotations

from datetime import timedelta

from dagster import AssetSelection, Definitions

from tmi_ops.orchestration.policies import Lane, job_tags
from tmi_ops.orchestration.protected import Protected

PROTECT_JOB = "protect"
LONGEST_RUN = timedelta(days=1)


def main_job_definitions(here: Protected) -> Definitions:
    """The job `protect`."""
    schema = (("schema", "migration"), ("schema", "validation")) if here.profile.has_models else ()
    backup = (("backup", "logical"), ("backup", "logical_verified"))
    assets = [here.key(*path) for path in (*schema, *backup)]
    job = here.asset_job(
        PROTECT_JOB,
        selection=AssetSelection.assets(*assets),
        description=("Migrate and validate the schema, take" if schema else "Take")
        + " a logical backup and verify it by a restore.",
        tags=job_tags(here, Lane.BACKUP, LONGEST_RUN),
    )
    return Definitions(jobs=[job])
