"""A store with a long history, made through the project's own models: backups with verdicts, and WAL between them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tmi_ops import __version__
from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE, Segment, format_lsn
from tmi_ops.store.folders import MANIFEST
from tmi_ops.store.manifest import (
    BaseManifest,
    Kind,
    Manifest,
    StoredObject,
    TableFingerprint,
    Verification,
    to_json,
)
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links
from tmi_ops.wal.stored_file import FileFacts

CLUSTER = "7000000000000000001"
TABLES = 52
WRITERS = 16
_SHA = "0123456789abcdef" * 4


def write_backups(store: ObjectStore, count: int, *, segments: int, newest: datetime | None = None) -> None:
    """`count` proven backups of each kind, a day's share apart, the newest an hour old.

    Written object by object, as releases before the catalogue did: whoever measures has it made, or not.
    """
    newest = newest or datetime.now(UTC) - timedelta(hours=1)
    step = timedelta(days=30) / max(count, 1)
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [(number, kind) for number in range(count) for kind in ("logical", "base")]
        list(pool.map(lambda job: _write(store, job[1], job[0], newest - job[0] * step, count, segments), jobs))


def write_wal(store: ObjectStore, segments: int, *, first: int = 0) -> None:
    """Whole segments with the metadata of real ones, from number `first` on."""
    describe_archive(store, CLUSTER, DEFAULT_SEGMENT_SIZE)
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda number: _write_segment(store, number), range(first, first + segments)):
            pass


def _write(store: ObjectStore, kind: Kind, number: int, taken: datetime, count: int, segments: int) -> None:
    backup_id = f"{taken:%Y%m%dT%H%M%SZ}-{kind}-{number:04x}"
    manifest = _logical(backup_id, taken) if kind == "logical" else _base(backup_id, taken, number, count, segments)
    folder = f"{kind}/{backup_id}"
    verification = Verification(
        backup_id=backup_id,
        outcome="proven",
        verified_at=taken + timedelta(minutes=30),
        phases={"fetch": 3.0, "restore": 20.0, "compare": 5.0},
        restore_seconds=20.0,
        tables=TABLES,
        rows=1_000_000,
        server_version="17.1",
        tmi_ops_version=__version__,
        manifest_sha256=manifest.stored_sha256,
    )
    for item in manifest.objects:
        store.put_bytes(f"{folder}/{item.name}", b"x")
    store.put_bytes(f"{folder}/SHA256SUMS", b"x")
    store.put_bytes(f"{folder}/{MANIFEST}", to_json(manifest))
    name = f"verdict-{verification.verified_at:%Y%m%dT%H%M%S%fZ}-{number:04x}.json"
    store.put_bytes(f"{folder}/{name}", to_json(verification))


def _logical(backup_id: str, taken: datetime) -> Manifest:
    return Manifest(
        backup_id=backup_id,
        environment=_ENVIRONMENT,
        server_version="17.1",
        server_version_num=170001,
        started_at=taken,
        finished_at=taken + timedelta(minutes=2),
        duration_seconds=120.0,
        tmi_ops_version=__version__,
        kind="logical",
        format="custom",
        database="tmi",
        database_size=10 << 30,
        encoding="UTF8",
        collation="C",
        ctype="C",
        system_identifier=CLUSTER,
        snapshot="00000003-00000001-1",
        snapshot_at=taken,
        objects=tuple(_objects("database.dump", "globals.sql", "inventory.json.zst")),
        digest_method="copy",
        fingerprints={f"public.table_{n}": TableFingerprint(rows=n, digest=_SHA) for n in range(TABLES)},
    )


def _base(backup_id: str, taken: datetime, number: int, count: int, segments: int) -> BaseManifest:
    """The newest has number 0; each begins where its share of the WAL does."""
    segment = 1 + (count - 1 - number) * max(segments - 2, 0) // max(count, 1)
    return BaseManifest(
        backup_id=backup_id,
        environment=_ENVIRONMENT,
        server_version="17.1",
        server_version_num=170001,
        started_at=taken,
        finished_at=taken + timedelta(minutes=2),
        duration_seconds=120.0,
        tmi_ops_version=__version__,
        format="full",
        system_identifier=CLUSTER,
        timeline=1,
        start_lsn=format_lsn(segment * DEFAULT_SEGMENT_SIZE + 0x28),
        stop_lsn=format_lsn(segment * DEFAULT_SEGMENT_SIZE + 0x100),
        consistent_at=taken + timedelta(minutes=2),
        wal_segment_size=DEFAULT_SEGMENT_SIZE,
        data_checksums=True,
        cluster_size=10 << 30,
        role="measurement",
        objects=tuple(_objects("base.tar.zst", "backup_manifest.zst")),
    )


def _objects(*names: str) -> Iterator[StoredObject]:
    for name in names:
        yield StoredObject(name=name, size=1 << 30, sha256=_SHA, plain_size=1 << 30, plain_sha256=_SHA, encrypted=False)


def _write_segment(store: ObjectStore, number: int) -> None:
    size = DEFAULT_SEGMENT_SIZE
    start = number * size
    links = Links(
        first=start + 0x28,
        prev=start - 0x40 if number else None,
        last=start + size - 0x40,
        before_last=start + size - 0x80,
        first_commit=datetime.now(UTC),
        last_commit=datetime.now(UTC),
        chain=_SHA,
    )
    facts = FileFacts(size, _SHA, start + size)
    store.put(file_key(CLUSTER, Segment(1, start, size).name), b"x" * 64, {**links.metadata(), **facts.metadata()})


_ENVIRONMENT = "production"
