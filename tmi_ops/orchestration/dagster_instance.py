"""Dagster's instance, kept by the code server.

Dagster makes one for each look of a sensor and each tick of a schedule that asks for it, which connects three times and
reads the tables' names: 0.04 CPU s. Its storages hold no connection, so one serves every thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dagster import DagsterInstance

if TYPE_CHECKING:
    from dagster import ScheduleEvaluationContext, SensorEvaluationContext
    from dagster._core.instance import InstanceRef

_LOCK = threading.Lock()
_KEPT: list[tuple[InstanceRef, DagsterInstance]] = []


def instance_of(context: SensorEvaluationContext | ScheduleEvaluationContext) -> DagsterInstance:
    """The instance of this tick."""
    ref = context.instance_ref
    if ref is None:
        return context.instance
    with _LOCK:
        kept = next((instance for known, instance in _KEPT if known == ref), None)
        if kept is None:
            kept = DagsterInstance.from_ref(ref)
            _KEPT[:] = [(ref, kept)]
        return kept
