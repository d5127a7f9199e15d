"""Copies the recovered database to the server of the damaged one."""

from __future__ import annotations

import shutil
from pathlib import Path

from tmi_ops.backup.dump import dump_command
from tmi_ops.backup.properties import read_properties
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.progress import Report
from tmi_ops.recovery.load import RESTORE_JOBS
from tmi_ops.recovery.new_database import create_database, drop_database
from tmi_ops.recovery.surroundings import apply_properties
from tmi_ops.recovery.two_role_load import load_with_two_roles
from tmi_ops.settings import PostgresSettings


def copy_database(
    source: PostgresSettings, target: PostgresSettings, directory: Path, programs: Programs, report: Report
) -> None:
    """Dump `source`, a database that nobody writes to, and restore it as the database `target`.

    Functions in CHECKs, indexes and views belong to table owners, so they do not run as a superuser.

    Args:
        directory: for the dump, on this machine. Its content is replaced, as is an existing `target`.

    Raises:
        DatabaseError, ProgramError: the dump or the restore failed. A partial `target` stays.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    dump = directory / "dump"
    with exported_snapshot(source) as snapshot, report.phase("dump", total=1, unit="steps") as phase:
        encoding = snapshot.server.encoding
        argv = dump_command(programs, "directory", snapshot.name, encoding, directory=dump, jobs=RESTORE_JOBS)
        run_program(argv, env=libpq_environment(source, server_major=snapshot.server.major))
        properties = read_properties(snapshot.connection)
        phase.advance(1)
    drop_database(target, target.database)
    create_database(target, properties, target.database, report)
    load_with_two_roles(target, dump, programs, report)
    apply_properties(target, properties, report)
    shutil.rmtree(directory, ignore_errors=True)
