"""Who knows that the archive held everything at some moment: a living server, or the receiver by its lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.lease import Lease, read_lease
from tmi_ops.wal.lineage import Lineage


@dataclass(frozen=True)
class Witness:
    """Who knows that at `at`, by the server's clock, the server's flushed WAL ended at `lsn`, on `timeline`.

    It must have been asked before the archive was read. `timeline` None: not known.
    """

    who: Literal["server", "receiver"]
    system_identifier: str
    lsn: int
    at: datetime
    timeline: int | None = None

    def is_of(self, line: Lineage) -> bool:
        """Whether this place in the WAL belongs to the line."""
        return self.timeline is None or any(
            item.timeline == self.timeline and item.start <= self.lsn and (item.end is None or self.lsn <= item.end)
            for item in line.stretches
        )


def lease_witness(system_identifier: str, lease: Lease) -> Witness | None:
    """What a receiver's lease tells, also one that has ended; None where it was never level."""
    if lease.level_at is None or lease.lsn is None:
        return None
    return Witness(
        "receiver", system_identifier, parse_lsn(lease.lsn), lease.level_at.astimezone(UTC), lease.timeline or None
    )


def ask_receiver(store: ObjectStore, system_identifier: str) -> Witness | None:
    """None where nobody ever received this cluster's WAL.

    Raises:
        StoreError: the lease cannot be understood, or the store failed.
    """
    found = read_lease(store, system_identifier)
    return None if found is None else lease_witness(system_identifier, found[0])
