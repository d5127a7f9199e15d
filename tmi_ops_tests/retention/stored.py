"""Backups in a real store, small and whole, and a plan that removes some."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.retention.plan import Decision, RetentionPlan
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.backup_documents import commit_manifest, new_backup_id, record_verification
from tmi_ops.store.manifest import BaseManifest, Manifest, Outcome, Verification
from tmi_ops.store.objects import ObjectStore

NOW = datetime.now(UTC)
LEAN = RetentionPolicy(last=1, daily=0, weekly=0, monthly=0, yearly=0, window=timedelta(days=1))


def removing(store: ObjectStore, *backup_ids: str) -> RetentionPlan:
    """A plan that removes just these."""
    facts = read_facts(store)
    gone = [item for item in facts.backups if item.backup_id in backup_ids]
    return RetentionPlan(LEAN, (), tuple(Decision(item, ("",)) for item in gone), has_object_lock=facts.has_object_lock)


def write_base(store: ObjectStore, *chain: str, system_identifier: str = "7") -> BaseManifest:
    """A base backup that builds upon others."""
    backup_id = new_backup_id("base", NOW)
    data = store.upload(f"base/{backup_id}/base.tar.zst", iter([b"x" * 1000]))
    manifest = BaseManifest(
        backup_id=backup_id,
        environment="development",
        server_version="17.1",
        server_version_num=170001,
        started_at=NOW,
        finished_at=NOW,
        consistent_at=NOW,
        duration_seconds=1,
        tmi_ops_version="0",
        format="incremental" if chain else "full",
        parent=chain[-1] if chain else None,
        chain=chain,
        system_identifier=system_identifier,
        timeline=1,
        start_lsn="0/1000000",
        stop_lsn="0/1000100",
        wal_segment_size=16 << 20,
        data_checksums=True,
        cluster_size=1,
        role="postgres",
        objects=(data,),
    )
    commit_manifest(store, manifest)
    return manifest


def write_backup(store: ObjectStore, outcome: Outcome | None = "proven") -> str:
    backup_id = new_backup_id("logical", NOW)
    data = store.upload(f"logical/{backup_id}/dump", iter([b"x" * 1000]))
    commit_manifest(
        store,
        Manifest(
            backup_id=backup_id,
            environment="development",
            server_version="17.1",
            server_version_num=170001,
            started_at=NOW,
            finished_at=NOW,
            duration_seconds=1,
            tmi_ops_version="0",
            kind="logical",
            format="custom",
            database="tmi",
            database_size=1,
            encoding="UTF8",
            collation="C",
            ctype="C",
            snapshot="1",
            snapshot_at=NOW - timedelta(minutes=1),
            objects=(data,),
        ),
    )
    if outcome is not None:
        record_verification(
            store,
            Verification(
                backup_id=backup_id,
                outcome=outcome,
                verified_at=NOW,
                server_version="17.1",
                tmi_ops_version="0",
                manifest_sha256="0",
            ),
        )
    return backup_id
