"""Work so light that the tick of its schedule does it: a run would need a process that imports everything.

If it fails or cannot be done in a tick, a run does it: runs are retried, and their failure raises an alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster import AssetCheckEvaluation, AssetMaterialization, DagsterInstance

from tmi_ops.errors import OpsError
from tmi_ops.orchestration.failed_runs import alert_key
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.results import Materialized
from tmi_ops.orchestration.telling import told

if TYPE_CHECKING:
    from logging import Logger


@dataclass(frozen=True)
class Done:
    """What a tick did, for its page, and a result for each asset, with its key."""

    text: str
    results: Sequence[Materialized]


# None: it needs a run.
Work = Callable[[Environment], Done | None]


def done_in_tick(work: Work, job: str, environment: Environment, instance: DagsterInstance, log: Logger) -> Done | None:
    """Do the work and record it as a run of the job would. None: a run is needed."""
    from tmi_ops.alerts.service import AlertService

    try:
        done = work(environment)
    except (OpsError, OSError) as error:
        log.info(f"Not possible in a tick, so a run is launched: {error}")
        return None
    if done is None:
        return None
    for event in _events(done.results):
        instance.report_runless_asset_event(told(event, environment.for_people))
    AlertService(environment.settings).resolve(alert_key(job), "A tick of its schedule succeeded.")
    return done


def _events(results: Sequence[Materialized]) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
    for result in results:
        if result.asset_key is None:
            raise AssertionError
        yield AssetMaterialization(result.asset_key, metadata=result.metadata)
        for check in result.check_results or ():
            yield AssetCheckEvaluation(
                asset_key=result.asset_key,
                check_name=check.check_name or "",
                passed=check.passed,
                metadata=check.metadata,
                severity=check.severity,
                description=check.description,
            )
