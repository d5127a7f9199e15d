"""A backup in a real store, small and whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tmi_ops.store.catalogue import commit_manifest, new_backup_id, record_verdict
from tmi_ops.store.manifest import Manifest, Outcome, Verdict
from tmi_ops.store.objects import ObjectStore

NOW = datetime.now(UTC)


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
        record_verdict(
            store,
            Verdict(
                backup_id=backup_id,
                outcome=outcome,
                verified_at=NOW,
                server_version="17.1",
                tmi_ops_version="0",
                manifest_sha256="0",
            ),
        )
    return backup_id
