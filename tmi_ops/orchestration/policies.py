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

# A server that restarts or a store that throttles is back within minutes; anything longer needs a person.
MAX_RETRIES = 3
FIRST_RETRY_AFTER_S = 15.0

# Our runs have one step at a time: a process for each would only add its start-up time.
EXECUTOR = in_process_executor


class Lane(StrEnum):
    """Which runs may wait for each other. dagster.yaml limits the runs of each lane, so no lane waits for another.

    A drill that takes hours does not delay backups, nor a backup of a large cluster the WAL archive.
    """

    ARCHIVE = "archive"
    WATCH = "watch"
    BACKUP = "backup"
    VERIFICATION = "verification"
    UPKEEP = "upkeep"
    RECOVERY = "recovery"  # a real one

    @classmethod
    def _missing_(cls, value: object) -> Lane | None:
        """Its name in runs that an older release launched."""
        return cls.VERIFICATION if value == "proof" else None


def retry_delay_s(tried: int) -> float:
    """Seconds to wait before the next attempt: twice as long each time, with jitter of half."""
    return FIRST_RETRY_AFTER_S * 2.0**tried * random.uniform(0.5, 1.5)  # noqa: S311 spreads load, hides nothing


def pool(here: Protected, what: str) -> str:
    """A pool of one database. dagster.yaml runs one step of a pool at a time, across all runs."""
    return f"{here.flat}_{what}"


def backup_pool(here: Protected) -> str:
    """The pool of everything that copies a cluster or a database: never two at once. Backups also take a lock on the
    server, which counts those from the command line (see `tmi_ops/backup/one_at_a_time.py`)."""
    return f"{here.environment}_backup"


def job_tags(here: Protected, lane: Lane, at_most: timedelta) -> dict[str, str]:
    """The tags of a job's runs. Dagster's run monitoring ends one that takes longer than `at_most`."""
    return {
        ENVIRONMENT_TAG: here.name,
        LANE_TAG: f"{here.name}/{lane}",
        MAX_RUNTIME_TAG: str(int(at_most.total_seconds())),
    }


def grouped_by_environment(spec: AssetSpec, here: Protected) -> AssetSpec:
    """With the environment in its group: the UI merges groups of one name, whatever location they come from."""
    return spec.replace_attributes(group_name=f"{here.flat}_{spec.group_name}")
