"""Combines the extracted backups of a chain into one data directory, and verifies it against its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tmi_ops.errors import DiskSpaceError, ProgramError
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.recovery.point_in_time.base_files import Layout, UnusableBaseError, use_new_places
from tmi_ops.recovery.point_in_time.destination import OWN_TABLESPACES, WORK_NAME, Destination, is_in_place, most_bytes
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.store.objects import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHAIN, _COMBINED = "chain", "combined"


def layouts(plan: RecoveryPlan, destination: Destination, store: ObjectStore) -> list[Layout]:
    """Where each backup is extracted: a single full one directly into the destination, a chain side by side.

    Raises:
        StoreError: the servers' manifests, which list the file sizes, could not be read.
    """
    if len(plan.chain) == 1:
        limits = most_bytes(store, plan.base)
        return [Layout(plan.base, destination.directory, destination.places(plan.base), limits)]
    chain = destination.work / _CHAIN
    found = []
    for number, link in enumerate(plan.chain):
        places = {
            item.oid: chain / f"{number}.tablespaces" / item.oid
            for item in link.tablespaces
            if not is_in_place(item.location)
        }
        found.append(Layout(link, chain / str(number), places, most_bytes(store, link)))
    return found


def combine(programs: Programs, plan: RecoveryPlan, extracted: Sequence[Layout], destination: Destination) -> None:
    """Combine a chain into one data directory at the destination. Does nothing for a full backup.

    Raises:
        UnusableBaseError: the backups cannot be combined.
        DiskSpaceError: the disk is full.
    """
    if len(extracted) == 1:
        return
    for layout in extracted:
        use_new_places(layout.directory)
    combined = destination.work / _COMBINED
    new_places = destination.places(plan.base)
    mapping = [
        f"--tablespace-mapping={_escaped(old)}={_escaped(new_places[oid])}"
        for oid, old in extracted[-1].tablespaces.items()
    ]
    with _failures_explained(plan, "The backups of the chain cannot be combined"):
        run_program(
            [
                programs.path("pg_combinebackup"),
                "--no-sync",
                *mapping,
                f"--output={combined}",
                *(layout.directory for layout in extracted),
            ]
        )
    shutil.rmtree(destination.work / _CHAIN)
    for path in list(combined.iterdir()):
        path.rename(destination.directory / path.name)
    combined.rmdir()


def verify_files(programs: Programs, plan: RecoveryPlan, destination: Destination) -> None:
    """Verify every file against the manifest: presence, size, checksum.

    Raises:
        UnusableBaseError: one differs; the message names it.
    """
    with _failures_explained(plan, "The restored files differ from the backup's manifest"):
        run_program(
            [
                programs.path("pg_verifybackup"),
                "--no-parse-wal",
                "--quiet",
                f"--ignore={WORK_NAME}",
                f"--ignore={OWN_TABLESPACES}",
                "--ignore=lost+found",
                destination.directory,
            ]
        )


@contextmanager
def _failures_explained(plan: RecoveryPlan, what: str) -> Iterator[None]:
    try:
        yield
    except ProgramError as error:
        if "No space left on device" in error.message:
            raise DiskSpaceError(
                "The disk became full while the chain was combined.",
                detail="What was restored so far was removed again; the backups are untouched.",
                hint="free some space there, or restore to a larger disk (--into)",
            ) from error
        raise UnusableBaseError(
            plan.base.backup_id,
            f"{what}: {error.message}",
            detail="What was restored so far was removed again; the backups are untouched.",
            hint=f"use another base backup than {plan.base.backup_id}: --backup ID (`tmi-ops backups`)",
        ) from error


def _escaped(place: Path) -> str:
    """In the syntax of --tablespace-mapping: absolute, with `=` escaped by a backslash."""
    return str(place.absolute()).replace("=", "\\=")
