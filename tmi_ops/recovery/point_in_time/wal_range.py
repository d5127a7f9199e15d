"""The archived WAL that continues a base backup. Pure."""

from __future__ import annotations

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.coverage import WalRange, coverage
from tmi_ops.wal.lineage import Lineage


def wal_after(base: BaseManifest, line: Lineage, archive: WalArchive) -> WalRange:
    """The archived WAL that continues a base backup along its line.

    A base backup includes the WAL from its start to its end; on a primary, up to the end of a segment.
    """
    return coverage(archive, line).range_from(parse_lsn(base.start_lsn), continued_at(base, line))


def continued_at(base: BaseManifest, line: Lineage) -> int:
    """The LSN from which the archive must continue a base backup along its line."""
    stop = parse_lsn(base.stop_lsn)
    if base.from_standby is not False:
        return stop
    whole = -(-stop // base.wal_segment_size) * base.wal_segment_size
    left = next(item.end for item in line.stretches if item.timeline == base.timeline)
    return whole if left is None else min(whole, left)
