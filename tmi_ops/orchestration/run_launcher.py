"""Dagster's run launcher, extended by a check whether a run's process is still alive. Used by dagster.yaml.

The default one has no such check, so a run whose process was killed together with its code server, or whose machine
vanished, stays STARTED until its maximum runtime: a day for a backup, with the pool taken.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dagster import DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

from tmi_ops.orchestration.presence import LOOK_EVERY_S, is_present

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun
    from dagster._core.launcher.base import LaunchRunContext
    from dagster._serdes.config_class import ConfigurableClassData

# On runs that hold their lock; those of another launcher or of an older release do not.
WATCHED_TAG = "tmi_ops/watched"
# A run takes its lock a moment after it has started, and a moment after its connection was lost.
ABSENT_FOR_S = 30.0 + 2 * LOOK_EVERY_S


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs on code servers, and notices when the process of one is gone."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._absent_since: dict[str, float] = {}

    def launch_run(self, context: LaunchRunContext) -> None:
        self._instance.add_run_tags(context.dagster_run.run_id, {WATCHED_TAG: "true"})
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """A run that held no lock for a while is gone; if that cannot be told, it counts as alive."""
        instance: DagsterInstance = self._instance
        if WATCHED_TAG not in run.tags or is_present(instance, run.run_id) is not False:
            self._absent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        since = self._absent_since.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < ABSENT_FOR_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._absent_since.pop(run.run_id, None)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, msg="The run's process is gone.")
