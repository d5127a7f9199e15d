"""The actions for the steps of this runbook; `restore` uses a logical backup, if the store has no base backup."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tmi_ops.drill.chain import Bound
from tmi_ops.drill.copy import running_cluster
from tmi_ops.drill.evidence import TITLES
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.cluster import initialise_cluster, require_free_space
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.versions import major_of
from tmi_ops.recovery.compare import compare_with_source
from tmi_ops.recovery.fetch import disk_needed, fetch_backup
from tmi_ops.recovery.load import load_dump
from tmi_ops.recovery.new_database import create_database
from tmi_ops.recovery.roles import restore_roles
from tmi_ops.recovery.surroundings import apply_properties, read_surroundings
from tmi_ops.runbooks.execution import Action, Actions, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.questions import check_running
from tmi_ops.runbooks.serving.cluster import new_password
from tmi_ops.runbooks.serving.steps import CONNECT, PROVISION, SERVE
from tmi_ops.runbooks.steps.cache import CACHE_OR_NEW
from tmi_ops.runbooks.steps.hooks import HEALTH, START
from tmi_ops.runbooks.steps.place import claim, clear, holds_cluster, place_of
from tmi_ops.runbooks.steps.recover import RECOVER, RecoveredCluster, lost_cluster, request_of
from tmi_ops.store.catalogue import find_backup

SUPERUSER = "postgres"


def _restore(work: Work) -> None:
    request = request_of(work)
    destination = place_of(request.place)
    if work.journal.known(RecoveredCluster) is not None and holds_cluster(work, request.place):
        work.say("It was already restored before the run was cut off.")
        return
    work.forget(RecoveredCluster)
    claim(work, request.place)
    manifest = find_backup(work.store, request.backup or "latest", work.settings.postgres.database)
    programs = server_programs(
        major_of(manifest.server_version_num), work.settings.pg_bindir, work.settings.copy_libraries
    )
    require_free_space(destination.directory, disk_needed(manifest), f"Restoring {manifest.backup_id}")
    together = destination.lies_together
    initialise_cluster(programs, destination.directory, superuser=SUPERUSER, password=new_password(), confined=together)
    scratch = work.settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="fetch-", dir=scratch) as directory,
        running_cluster(destination, SUPERUSER, programs, {"fsync": "on"}) as server,
    ):
        fetched = fetch_backup(work.store, manifest, Path(directory), work.report)
        surroundings = read_surroundings(fetched, work.report)
        restore_roles(server, surroundings.roles, work.report)
        create_database(server, surroundings.database, manifest.database, work.report)
        address = server.model_copy(update={"database": manifest.database})
        load_dump(address, fetched, programs, work.report)
        apply_properties(address, surroundings.database, work.report)
        comparison = compare_with_source(address, fetched, programs, work.report)
        if not comparison.equal:
            raise RecoveryError(
                f"The restored database differs from its backup: {'; '.join(comparison.differences[:5])}.",
                detail="It was not put into service.",
                hint="name another backup with --backup; `tmi-ops backups` lists them",
            )
        detail = f"{len(comparison.fingerprints)} tables and {comparison.rows:,} rows equal the backup."
        work.answer(Answer(title="Backup fingerprints", outcome="passed", detail=detail))
        for answer in check_running(server, programs, manifest.database, None, Bound()):
            if answer.title != TITLES["heartbeat"]:
                work.answer(answer)
        with connect(server) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    work.say(detail)
    work.remember(
        RecoveredCluster(
            role=SUPERUSER,
            major=programs.major,
            backup_id=manifest.backup_id,
            target=f"the logical backup {manifest.backup_id}",
            lsn=row[0] if row else "0/0",
            last_commit_at=manifest.snapshot_at,
            timeline=1,
            whole=False,
        )
    )


def _clear(work: Work) -> None:
    clear(work, request_of(work).place)


RESTORE = Action(_restore, _clear, lost=lost_cluster)
ACTIONS: Actions = {
    "recover": RECOVER,
    "restore": RESTORE,
    "provision": PROVISION,
    "serve": SERVE,
    "connect": CONNECT,
    "cache": CACHE_OR_NEW,
    "start": START,
    "health": HEALTH,
}
