"""Invented facts of clusters, for tests of decisions. LSNs are given in segments of 16 MiB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from tmi_ops.postgres.wal_files import Segment, TimelineSwitch, format_lsn
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.archive import ArchivedPartial, WalArchive
from tmi_ops.wal.runs import ArchivedSegment

SEGMENT = 16 << 20
SYSTEM = "7711554964273702704"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def lsn(segments: float) -> int:
    """`2.5` is the middle of the third segment."""
    return int(segments * SEGMENT)


def minutes(count: float) -> datetime:
    """This many minutes after noon."""
    return NOON + timedelta(minutes=count)


def a_base(
    name: str, stop: float, *, timeline: int = 1, upon: BaseManifest | None = None, from_standby: bool = False
) -> BaseManifest:
    """A base backup that ended at LSN `stop` (in segments), and as many minutes after noon."""
    return BaseManifest(
        backup_id=name,
        environment="development",
        server_version="17.10",
        server_version_num=170010,
        started_at=minutes(stop),
        finished_at=minutes(stop),
        duration_seconds=1.0,
        parent=upon.backup_id if upon else None,
        tmi_ops_version="0",
        format="incremental" if upon else "full",
        chain=(*upon.chain, upon.backup_id) if upon else (),
        system_identifier=SYSTEM,
        timeline=timeline,
        start_lsn=format_lsn(lsn(stop - 0.2)),
        stop_lsn=format_lsn(lsn(stop)),
        consistent_at=minutes(stop),
        wal_segment_size=SEGMENT,
        data_checksums=True,
        cluster_size=1,
        role="postgres",
        from_standby=from_standby,
        objects=(),
    )


def an_archive(
    whole: Mapping[int, Sequence[int]],
    partial: Mapping[int, tuple[int, float]] | None = None,
    histories: Sequence[int] = (),
) -> WalArchive:
    """Whole segments by timeline, and open ones: `{1: (5, 5.5)}` is segment 5 of timeline 1, valid up to its middle."""
    open_ones = (partial or {}).items()
    return WalArchive(
        system_identifier=SYSTEM,
        segment_size=SEGMENT,
        segments={
            timeline: tuple(ArchivedSegment(Segment(timeline, lsn(number)), 1) for number in numbers)
            for timeline, numbers in whole.items()
        },
        partials={
            timeline: (ArchivedPartial(Segment(timeline, lsn(number)), 1, lsn(end)),)
            for timeline, (number, end) in open_ones
        },
        histories=tuple(histories),
    )


def some_facts(bases: Sequence[BaseManifest], archive: WalArchive, **changes: object) -> RecoveryFacts:
    """`histories` are given as in `switches`."""
    facts = {"system_identifier": SYSTEM, "bases": tuple(bases), "archive": archive, "histories": {}, **changes}
    return RecoveryFacts(**facts)  # type: ignore[arg-type]


def switches(*ancestors: tuple[int, float]) -> tuple[TimelineSwitch, ...]:
    """`(1, 5.5)`: timeline 1 was left in the middle of segment 5."""
    return tuple(TimelineSwitch(timeline, lsn(left), "") for timeline, left in ancestors)
