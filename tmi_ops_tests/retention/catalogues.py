"""Facts for tests of retention: catalogues written in days ago, and random ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from tmi_ops.postgres.wal_files import TimelineSwitch
from tmi_ops.retention.facts import Backup, ClusterWal, HalfMade, Hold, RetentionFacts, VerificationState, WalFile
from tmi_ops.wal.lineage import lineage
from tmi_ops_tests.retention.memory_s3 import MemoryS3

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
CLUSTER = "7000000000000000001"
SEGMENT = 100  # LSNs; the plan does not care how long a segment is
PER_DAY = 4 * SEGMENT


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def name_of(kind: str, taken_at: datetime, number: int) -> str:
    return f"{taken_at:%Y%m%dT%H%M%SZ}-{kind}-{number:04x}"


def logical(
    days: float, verification: VerificationState = "proven", number: int = 0, hold: str = "", subject: str = "tmi"
) -> Backup:
    taken = days_ago(days)
    backup_id = name_of("logical", taken, number)
    held = Hold(backup_id, hold, taken) if hold else None
    return Backup(backup_id, "logical", f"the database {subject}", taken, 10, 3, verification, hold=held)


def base(
    days: float,
    lsn: int,
    *,
    verification: VerificationState = "proven",
    chain: tuple[Backup, ...] = (),
    timeline: int = 1,
) -> Backup:
    taken = days_ago(days)
    return Backup(
        name_of("base", taken, lsn % 0xFFFF),
        "base",
        f"the cluster {CLUSTER}",
        taken,
        100,
        3,
        verification,
        chain=tuple(link.backup_id for link in chain),
        system_identifier=CLUSTER,
        timeline=timeline,
        start_lsn=lsn,
        stop_lsn=lsn + 10,
    )


def wal_file(start: int, days: float, timeline: int = 1) -> WalFile:
    key = f"wal/{CLUSTER}/{timeline:08X}/{timeline:08X}{start:016X}.zst"
    return WalFile(key, 1, days_ago(days), timeline, start, start + SEGMENT)


def facts(*backups: Backup, wal: tuple[WalFile, ...] = (), fork: int | None = None) -> RetentionFacts:
    """`fork`: the LSN at which timeline 2 left timeline 1."""
    lines = {2: lineage(2, [TimelineSwitch(1, fork, "")])} if fork is not None else {}
    return RetentionFacts(
        backups=backups,
        wal=(ClusterWal(CLUSTER, wal, lines),) if wal else (),
        store_now=NOW,
        newest_at=max([item.taken_at for item in backups] + [file.stored_at for file in wal], default=None),
    )


def stored(known: RetentionFacts) -> MemoryS3:
    """A store in which just these facts would be read."""
    s3 = MemoryS3()
    for backup in known.backups:
        for name in ("SHA256SUMS", "data", "manifest.json", *(["hold.json"] if backup.hold else [])):
            s3.objects[f"{backup.kind}/{backup.backup_id}/{name}"] = (1, backup.taken_at)
    for half in known.half_made:
        s3.objects[f"logical/{half.backup_id}/data"] = (1, half.touched_at)
    for cluster in known.wal:
        for file in cluster.files:
            s3.objects[file.key] = (file.size, file.stored_at)
    return s3


def surviving(known: RetentionFacts, s3: MemoryS3) -> RetentionFacts:
    """What would be read from the store now, after some of what was known has gone."""
    committed = [item for item in known.backups if f"{_folder(item)}manifest.json" in s3.objects]
    half = [(item.backup_id, item.touched_at) for item in known.half_made]
    half += [(item.backup_id, item.taken_at) for item in known.backups if item not in committed]
    return replace(
        known,
        backups=tuple(committed),
        wal=tuple(replace(wal, files=tuple(file for file in wal.files if file.key in s3.objects)) for wal in known.wal),
        half_made=tuple(
            HalfMade(backup_id, 1, 1, touched_at)
            for backup_id, touched_at in half
            if any(f"/{backup_id}/" in key for key in s3.objects)
        ),
    )


def _folder(backup: Backup) -> str:
    return f"{backup.kind}/{backup.backup_id}/"


@st.composite
def catalogues(draw: st.DrawFn) -> RetentionFacts:
    """A month or so of logical backups, base chains, and continuous WAL, perhaps with a recovery into the past."""
    verifications: st.SearchStrategy[VerificationState] = st.sampled_from(["proven", "proven", "not proven", "failed"])
    holds = st.sampled_from(["", "", "", "", "audit"])
    backups: list[Backup] = []
    for days in range(25):
        for number in range(draw(st.integers(0, 2))):
            backups.append(logical(days + 0.1, draw(verifications), number, draw(holds)))
    length = draw(st.integers(5, 40))  # days of WAL
    back_at = draw(st.none() | st.integers(1, length))  # so many days ago the cluster went back in time
    back_by = draw(st.integers(0, 5)) if back_at is not None else 0
    fork = max(SEGMENT, (length - (back_at or 0) - back_by) * PER_DAY + 150)

    def place(days: float) -> tuple[int, int]:
        """Timeline and LSN so many days ago."""
        if back_at is None or days > back_at:
            return 1, SEGMENT + int((length - days) * PER_DAY)
        return 2, fork + int((back_at - days) * PER_DAY)

    chain: list[Backup] = []
    for days in range(length, -1, -1):
        taken = draw(st.sampled_from(["", "full", "incremental", "incremental"]))
        timeline, lsn = place(days)
        if taken == "full" or (chain and chain[-1].timeline != timeline):
            chain = []
        if taken:
            chain.append(base(days, lsn, verification=draw(verifications), chain=tuple(chain), timeline=timeline))
            backups.append(chain[-1])
    wal: dict[str, WalFile] = {}
    for half_file in range(length * PER_DAY // SEGMENT * 2, -1, -1):
        ago = half_file * SEGMENT / PER_DAY / 2
        timeline, lsn = place(ago)
        file = wal_file(lsn - lsn % SEGMENT, ago, timeline)
        wal[file.key] = file
    known = facts(*backups, wal=tuple(wal.values()), fork=fork if back_at is not None else None)
    half = tuple(
        HalfMade(name_of("logical", days_ago(age), 999), 1, 1, days_ago(age))
        for age in draw(st.sets(st.integers(0, 3), max_size=2))
    )
    return RetentionFacts(known.backups, known.wal, half, (), NOW, NOW)
