"""What every asset and job shares: owners, retries, pools, lanes, time limits, and where steps run."""

from __future__ import annotations

import random
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from dagster import AssetSpec, in_process_executor

if TYPE_CHECKING:
    from tmi_ops.orchestration.protected import Protected

OWNERS = ["team:tmi-operations"]
ENVIRONMENT_TAG = "tmi_ops/environment"
LANE_TAG = "tmi_ops/lane"
MAX_RUNTIME_TAG = "dagster/max_runtime"  # seconds; Dagster's own

# A server that restarts or a store that throttles is back within minutes; whatever lasts longer needs a person.
MAX_RETRIES = 3
FIRST_RETRY_AFTER_S = 15.0

# Our runs have one step at a time: a process of its own for each would only cost its start.
EXECUTOR = in_process_executor


class Lane(StrEnum):
    """Which runs may hold each other up. dagster.yaml limits how many of one lane run, so no lane waits for another.

    A drill that takes hours leaves the backups' lane free, and a backup of a large cluster the archive's.
    """

    ARCHIVE = "archive"
    WATCH = "watch"
    BACKUP = "backup"
    PROOF = "proof"
    UPKEEP = "upkeep"
    RECOVERY = "recovery"  # in earnest; it waits for nobody


def retry_delay_s(tried: int) -> float:
    """How long to wait before the next attempt: twice as long each time, give or take half."""
    return FIRST_RETRY_AFTER_S * 2.0**tried * random.uniform(0.5, 1.5)  # noqa: S311 spreads load, hides nothing


def pool(here: Protected, what: str) -> str:
    """A pool of one database. dagster.yaml lets one step of a pool run at a time, across all runs."""
    return f"{here.flat}_{what}"


def backup_pool(here: Protected) -> str:
    """Of everything that copies a cluster or a database of it whole: never two at once. Of one database the backups
    themselves see to it too, so that one from the command line counts (see `tmi_ops/backup/one_at_a_time.py`)."""
    return f"{here.environment}_backup"


def job_tags(here: Protected, lane: Lane, at_most: timedelta) -> dict[str, str]:
    """The tags of a job's runs. One that takes longer than `at_most` hangs, and Dagster's run monitoring ends it."""
    return {
        ENVIRONMENT_TAG: here.name,
        LANE_TAG: f"{here.name}/{lane}",
        MAX_RUNTIME_TAG: str(int(at_most.total_seconds())),
    }


def grouped_by_environment(spec: AssetSpec, here: Protected) -> AssetSpec:
    """In a group of its environment: the UI draws groups of one name as one box, whatever location they come from."""
    return spec.replace_attributes(group_name=f"{here.flat}_{spec.group_name}")
