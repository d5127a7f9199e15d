"""Makes sure that every WAL file a recovery plan names is in the bucket when the plan is made.

The archive's index lists what was there when it was written. If files have been removed since, by a person or a
lifecycle rule, the plan is made again from a full listing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.clock import with_times
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan, plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.coverage import WalFile
from tmi_ops.wal.layout import SUFFIX, file_key

# A complete segment, or a piece of a partial one.
_OF_A_SEGMENT = re.compile(
    rf"(?P<name>[0-9A-F]{{24}})(?:{re.escape(PARTIAL_SUFFIX)}(?:\.[0-9A-F-]+)?)?{re.escape(SUFFIX)}"
)


def confirmed_plan(
    store: ObjectStore,
    facts: RecoveryFacts,
    target: Target,
    programs: Programs,
    directory: Path,
    report: Report,
    *,
    timeline: int | None = None,
    base: str | None = None,
) -> RecoveryPlan:
    """Plan a recovery like `with_times` and `plan_recovery`, but only from WAL that is in the bucket.

    Raises:
        RecoveryError: the target cannot be reached; the message says what can.
        StoreError: the store failed.
    """

    def planned(facts: RecoveryFacts) -> RecoveryPlan:
        timed = with_times(store, facts, target, programs, directory, report, timeline=timeline)
        return plan_recovery(timed, target, timeline=timeline, base=base)

    plan = planned(facts)
    if are_there(store, facts.system_identifier, plan.wal.files):
        return plan
    report.note("The archive's index lists WAL that is missing from the bucket; planning without it.")
    return planned(replace(facts, archive=list_wal(store, facts.system_identifier, whole=True)))


def are_there(store: ObjectStore, system_identifier: str, files: Iterable[WalFile]) -> bool:
    """Whether the bucket has all of these files. Needs one request per thousand files.

    Raises:
        StoreError: the store failed.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for file in files:
        wanted[file.stored[:8]].add(file.stored.removesuffix(PARTIAL_SUFFIX))
    return all(names <= _listed(store, system_identifier, min(names), max(names)) for names in wanted.values())


def _listed(store: ObjectStore, system_identifier: str, first: str, last: str) -> set[str]:
    """Names of the segments from `first` to `last`, complete or partial."""
    beginning = file_key(system_identifier, first)
    folder = beginning[: beginning.rindex("/") + 1]
    found = set()
    for item in store.list_objects(folder, after=beginning.removesuffix(SUFFIX)):
        match = _OF_A_SEGMENT.fullmatch(item.key.removeprefix(folder))
        if match is None:
            continue
        if match["name"] > last:
            break
        found.add(match["name"])
    return found
