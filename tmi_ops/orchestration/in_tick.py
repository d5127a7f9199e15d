"""Work so light that the tick of its schedule does it: a run would take a process and the import of everything for it.

What cannot be done so, or fails, a run does: it is tried again, and its failure is told.
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
    """What a tick did, in words for its page, and what came of it for each asset, which its result names."""

    words: str
    results: Sequence[Materialized]


# None: it takes a run.
Work = Callable[[Environment], Done | None]


def done_in_tick(work: Work, job: str, environment: Environment, instance: DagsterInstance, log: Logger) -> Done | None:
    """Do it and record it as a run of the job would; None: a run is needed."""
    from tmi_ops.alerts.desk import AlertDesk

    try:
        done = work(environment)
    except (OpsError, OSError) as error:
        log.info(f"A run is begun for it: {error}")
        return None
    if done is None:
        return None
    for event in _events(done.results):
        instance.report_runless_asset_event(told(event, environment.for_people))
    AlertDesk(environment.settings).resolve(alert_key(job), "The tick of its schedule did it.")
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
