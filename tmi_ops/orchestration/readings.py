"""One reading of store and server, shared by an environment's guards and by ticks that do a schedule's work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from tmi_ops.objectives.sharing import SharedReading
from tmi_ops.orchestration.resources import Environment

if TYPE_CHECKING:
    from tmi_ops.objectives.facts import RecoverabilityFacts
    from tmi_ops.store.objects import ObjectStore

# Ticks this close together share one reading.
SHARED_FOR = timedelta(seconds=20)
# Dagster ends a tick after 60 s, and nobody would be alerted. What was not read by then counts as unknown.
BUDGET_S = 40.0


@dataclass
class _Guarded:
    """The last reading of one environment, and its store; the store is reopened after a failure."""

    readings: SharedReading[RecoverabilityFacts] = field(default_factory=SharedReading)
    store: ObjectStore | None = None


# By what is read: a code location may serve several environments.
_GUARDED: defaultdict[str, _Guarded] = defaultdict(_Guarded)


def recent_facts(environment: Environment, shared_for: timedelta = SHARED_FOR) -> RecoverabilityFacts:
    """Facts not older than `shared_for`; a new reading is recorded in the history.

    Raises:
        OpsError: they could not be read, or not in time.
    """
    settings = environment.settings
    of = f"{settings.store.describe()} {settings.postgres.describe()} {settings.name}"
    guarded = _GUARDED[of]

    def read() -> RecoverabilityFacts:
        from tmi_ops.objectives.history import record_reading
        from tmi_ops.objectives.reading import read_recoverability

        store, guarded.store = guarded.store or environment.open_store(), None
        facts = read_recoverability(settings, store)
        record_reading(store, facts, settings.objectives.rpo)
        guarded.store = store
        return facts

    return guarded.readings.recent(of, read, shared_for_s=shared_for.total_seconds(), budget_s=BUDGET_S)
