"""The measurements of the last drills."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta

from tmi_ops.drill.evidence import FOLDER, Evidence, read_evidence
from tmi_ops.errors import IntegrityError, OpsError
from tmi_ops.objectives.facts import DrillMeasure
from tmi_ops.store.manifest import BrokenRecordError
from tmi_ops.store.objects import ObjectStore

LOOKED_AT = 8
_ENDING = ".json"


def read_drills(
    store: ObjectStore, keys: Iterable[str], on_broken: Callable[[OpsError], object]
) -> tuple[DrillMeasure, ...]:
    """The last few drills, newest first.

    Args:
        keys: keys of evidence.
        on_broken: called with the error for evidence that cannot be read.

    Raises:
        StoreError: the store failed.
    """
    begins = f"{FOLDER}/"
    ids = sorted((key[len(begins) : -len(_ENDING)] for key in keys if _is_evidence(key, begins)), reverse=True)

    def read(drill_id: str) -> DrillMeasure | None:
        try:
            return measure_of(read_evidence(store, drill_id))
        except (BrokenRecordError, IntegrityError) as error:
            on_broken(error)
            return None

    with ThreadPoolExecutor(LOOKED_AT, thread_name_prefix="drills") as pool:
        found = list(pool.map(read, ids[:LOOKED_AT]))
    return tuple(measure for measure in found if measure is not None)


def measure_of(evidence: Evidence) -> DrillMeasure:
    """The measurements in a drill's evidence."""
    copy = evidence.copy_
    return DrillMeasure(
        drill_id=evidence.drill_id,
        at=evidence.finished_at.astimezone(UTC),
        outcome=evidence.outcome,
        sound=evidence.sound,
        reasons=evidence.reasons,
        rto=timedelta(seconds=evidence.rto_seconds),
        phases=evidence.phases,
        fetched=sum(backup.size for backup in evidence.backups),
        restored=copy.restored_size if copy else 0,
        replayed=copy.replayed_size if copy else 0,
    )


def _is_evidence(key: str, begins: str) -> bool:
    return key.startswith(begins) and key.endswith(_ENDING)
