"""Planning retention for a store of many objects: what it costs in time and memory.

    python -m benchmarks.retention --objects 100000

A real S3 server holds nightly backups of both kinds and WAL, tiny objects under the names that a real archive has.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import click

from benchmarks.servers import servers
from tmi_ops import __version__
from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE, Segment, format_lsn
from tmi_ops.retention.planning import plan_retention
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.backup_documents import commit_manifest, new_backup_id, record_verification
from tmi_ops.store.manifest import BaseManifest, Verification
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.layout import file_key

CLUSTER = "7000000000000000001"
ENVIRONMENT = "measurement"
BACKUPS = 100
OBJECTS_PER_BACKUP = 3  # manifest, checksums, verdict
WRITERS = 16
AT_ONCE = 4096


@click.command()
@click.option("--objects", default=100_000, show_default=True)
def main(objects: int) -> None:
    """Fill a store, read its facts, plan, and print the figures."""
    with tempfile.TemporaryDirectory() as directory, servers(Path(directory)) as parts:
        store = open_store(parts.store, ENVIRONMENT)
        fill(store, objects - BACKUPS * OBJECTS_PER_BACKUP)
        before = _peak_mb()
        start = time.monotonic()
        facts = read_facts(store)
        read = time.monotonic()
        plan = plan_retention(facts, RetentionPolicy(), datetime.now(UTC))
        planned = time.monotonic()
    files = sum(len(wal.files) for wal in facts.wal)
    click.echo(f"{files:,} WAL files and {len(facts.backups)} backups: {plan.describe()}")
    click.echo("| reading s | planning s | peak memory before MB | after MB |\n| ---: | ---: | ---: | ---: |")
    click.echo(f"| {read - start:.1f} | {planned - read:.2f} | {before:.0f} | {_peak_mb():.0f} |")


def fill(store: ObjectStore, wal_files: int) -> None:
    """`BACKUPS` proven base backups, and WAL around them."""
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda number: _write_base(store, number, wal_files), range(BACKUPS)))
        names = (Segment(1, number * DEFAULT_SEGMENT_SIZE, DEFAULT_SEGMENT_SIZE).name for number in range(wal_files))
        for some in _batches(names):
            list(pool.map(lambda name: store.put_bytes(file_key(CLUSTER, name), b"x"), some))


def _write_base(store: ObjectStore, number: int, wal_files: int) -> None:
    taken = datetime.now(UTC) - timedelta(days=BACKUPS - number)
    backup_id = new_backup_id("base", taken)
    lsn = number * wal_files // BACKUPS * DEFAULT_SEGMENT_SIZE
    common = {"tmi_ops_version": __version__, "server_version": "17.1", "backup_id": backup_id}
    manifest = BaseManifest(
        **common,
        environment=ENVIRONMENT,
        server_version_num=170001,
        started_at=taken,
        finished_at=taken,
        duration_seconds=1,
        format="full",
        system_identifier=CLUSTER,
        timeline=1,
        start_lsn=format_lsn(lsn),
        stop_lsn=format_lsn(lsn + 1),
        consistent_at=taken,
        wal_segment_size=DEFAULT_SEGMENT_SIZE,
        data_checksums=True,
        cluster_size=1,
        role="measurement",
        objects=(),
    )
    commit_manifest(store, manifest)
    record_verification(store, Verification(**common, outcome="proven", verified_at=taken, manifest_sha256="0"))


def _batches(names: Iterator[str]) -> Iterator[list[str]]:
    while some := list(islice(names, AT_ONCE)):
        yield some


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
