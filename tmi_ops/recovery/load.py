"""Loads a fetched logical backup into a new, empty database."""

from __future__ import annotations

import os
from pathlib import Path

from tmi_ops.backup.archive.files import read_toc, require_own_files
from tmi_ops.backup.archive.toc import ArchiveError, Toc
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.loader import loader_into
from tmi_ops.recovery.script import run_script
from tmi_ops.recovery.trees import calls_functions
from tmi_ops.settings import PostgresSettings

RESTORE_JOBS = min(4, os.cpu_count() or 1)


def load_dump(
    address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: Report, *, tablespaces: bool = True
) -> None:
    """Restore the dump into the empty database that `address` names; stops at the first error.

    Args:
        tablespaces: restore objects to their tablespaces; otherwise to the database's default. Always on for a script.

    Raises:
        ProgramError: pg_restore or psql failed; the message quotes its output.
    """
    if fetched.manifest.format in ("custom", "directory"):
        load_archive(address, fetched.dump, programs, report, tablespaces=tablespaces)
        return
    with report.phase("restore", total=1, unit="steps") as phase:
        run_script(fetched.dump, programs, loader_into(address, programs, fetched.dump))
        phase.advance(1)


def load_archive(
    address: PostgresSettings,
    dump: Path,
    programs: Programs,
    report: Report,
    *,
    tablespaces: bool = True,
    owners: bool = True,
) -> None:
    """Restore an archive of pg_dump, a file or a directory, into the empty database that `address` names.

    Tables are loaded in parallel, unless a CHECK calls a function: the function may read another table, which must be
    loaded first, as in the dump's own order.

    Args:
        owners: restore owners and privileges; otherwise everything belongs to the connecting role.

    Raises:
        ProgramError: pg_restore failed; the message quotes its output.
        ArchiveError: the dump directory refers to files outside of it.
    """
    if dump.is_dir():
        require_own_files(dump)
    argv: list[str | Path] = [
        programs.path("pg_restore"),
        "--no-password",
        "--exit-on-error",
        f"--dbname={address.database}",
        *([] if tablespaces else ["--no-tablespaces"]),
        *([] if owners else ["--no-owner", "--no-privileges"]),
    ]
    side_by_side = f"--jobs={RESTORE_JOBS}"
    steps = [[side_by_side]]
    if _order_matters(dump):
        report.note("A CHECK calls a function, so tables are loaded one after the other.")
        steps = [["--section=pre-data"], ["--section=data"], ["--section=post-data", side_by_side]]
    loader = loader_into(address, programs, dump)
    with report.phase("restore", total=len(steps), unit="steps") as phase:
        for step in steps:
            loader.run([*argv, *step, dump])
            phase.advance(1)


def _order_matters(dump: Path) -> bool:
    try:
        return order_matters(read_toc(dump))
    except ArchiveError:  # pg_restore reports it
        return False


def order_matters(toc: Toc) -> bool:
    """Whether a CHECK of a table or domain calls a function, which may depend on another table's rows."""
    checked = (entry.definition for entry in toc.entries if entry.desc in ("TABLE", "DOMAIN"))
    return any(calls_functions(definition) for definition in checked if "CHECK (" in definition)
