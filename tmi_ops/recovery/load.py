"""Loads a fetched logical backup into a new, empty database.

A plain dump is run with psql, with its backslash commands disabled. A dump is data from the store, and psql would run a
`\\! command` in it as our user. So psql is restricted before the dump begins, with a key that no dump can know.
Source: https://www.postgresql.org/docs/current/app-psql.html, \\restrict; CVE-2025-8714
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from tmi_ops.backup.archive.files import read_toc, require_own_files
from tmi_ops.backup.archive.toc import ArchiveError, Toc
from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.loader import Loader, loader_into
from tmi_ops.recovery.trees import calls_functions
from tmi_ops.settings import PostgresSettings

_COPY_SIZE = 1 << 20
# The first minor release of each major version that has \restrict; later major versions all have it.
_RESTRICTS_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
# pg_dump's own restriction, at the beginning and end of a script, must be removed.
_OWN = re.compile(rb"\A(?:(?:--[^\n]*)?\r?\n)*\\restrict (?P<key>[A-Za-z0-9]{1,128})\r?\n")
_HEAD = 1 << 14


def run_script(script: Path, programs: Programs, loader: Loader) -> None:
    """Run the script in one transaction; `.zst` is decompressed.

    Raises:
        ProgramError: this psql cannot be restricted, or the script failed.
    """
    if not can_restrict(programs):
        raise ProgramError(
            f"psql {programs.version} cannot disable commands in a plain dump (CVE-2025-8714).",
            hint=f"install the latest minor release of PostgreSQL {programs.major}, or take backups in the custom "
            "format",
        )
    argv: list[str | Path] = [
        programs.path("psql"), "--no-psqlrc", "--no-password", "--quiet", "--single-transaction",
        "--set=ON_ERROR_STOP=1", "--output=/dev/null",
    ]  # fmt: skip
    loader.run(argv, restricted(_script_bytes(script), secrets.token_hex(16)))


def can_restrict(programs: Programs) -> bool:
    """Whether psql has `\\restrict`."""
    minor = int(programs.version.split(".")[1]) if "." in programs.version else 0
    return programs.major > max(_RESTRICTS_SINCE) or minor >= _RESTRICTS_SINCE.get(programs.major, minor + 1)


def restricted(chunks: Iterable[bytes], key: str) -> Iterator[bytes]:
    """The script, restricted by `key`, without pg_dump's own restriction."""
    yield f"\\restrict {key}\n".encode()
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _HEAD:
            break
    own = _OWN.match(head)
    if own is None:
        yield head
        yield from source
        return
    yield from _without(b"\n\\unrestrict " + own["key"] + b"\n", head[own.end() :], source)


def _without(line: bytes, held: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Remove `line` from the stream; holds back as many bytes as could be its beginning."""
    for chunk in source:
        held = (held + chunk).replace(line, b"\n")
        safe = len(held) - len(line) + 1
        if safe > 0:
            yield held[:safe]
            held = held[safe:]
    yield held.replace(line, b"\n")


def _script_bytes(script: Path) -> Iterable[bytes]:
    with script.open("rb") as file:
        if script.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                while chunk := reader.read(_COPY_SIZE):
                    yield chunk
        else:
            while chunk := file.read(_COPY_SIZE):
                yield chunk


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
