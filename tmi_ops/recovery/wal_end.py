"""Readings of how far a server's WAL went at a known time: from the server itself, or from the receiver's lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.lease import Lease, read_lease
from tmi_ops.wal.lineage import Lineage


@dataclass(frozen=True)
class KnownWalEnd:
    """At `at`, by the server's clock, the server's flushed WAL ended at `lsn` on `timeline` (None: unknown).

    It must be read before the archive.
    """

    who: Literal["server", "receiver"]
    system_identifier: str
    lsn: int
    at: datetime
    timeline: int | None = None

    def is_of(self, line: Lineage) -> bool:
        """Whether this position in the WAL belongs to the line."""
        return self.timeline is None or any(
            item.timeline == self.timeline and item.start <= self.lsn and (item.end is None or self.lsn <= item.end)
            for item in line.stretches
        )


def lease_wal_end(system_identifier: str, lease: Lease) -> KnownWalEnd | None:
    """The reading from a receiver's lease, even an expired one; None if it has never caught up."""
    if lease.level_at is None or lease.lsn is None:
        return None
    return KnownWalEnd(
        "receiver", system_identifier, parse_lsn(lease.lsn), lease.level_at.astimezone(UTC), lease.timeline or None
    )


def read_receiver_wal_end(store: ObjectStore, system_identifier: str) -> KnownWalEnd | None:
    """Read the receiver's lease; None if there never was a receiver.

    Raises:
        StoreError: the lease cannot be read, or the store failed.
    """
    found = read_lease(store, system_identifier)
    return None if found is None else lease_wal_end(system_identifier, found[0])
