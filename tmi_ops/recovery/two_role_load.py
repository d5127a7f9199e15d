"""Loads a dump of our own with two roles: one for objects that only a superuser can create, one for the rest.

A database that is copied to its own server may contain objects that only a superuser can create: an untrusted
extension, an event trigger, a function in C. The connecting role creates these. Everything else, including every
function that the load calls from a CHECK, an index or a view, is created by a role that owns only the new database;
owners and privileges are set at the end (least_role.py). The dump must have just been made by our own pg_dump, because
entries of the first kind run unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tmi_ops.backup.archive.files import read_toc
from tmi_ops.backup.archive.toc import Toc, TocEntry
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Report
from tmi_ops.recovery.least_role import (
    give_owners_and_rights,
    is_of_superusers,
    is_superuser,
    loading_role,
    trusted_extensions,
)
from tmi_ops.recovery.load import RESTORE_JOBS, load_archive, order_matters
from tmi_ops.recovery.loader import loader_into
from tmi_ops.recovery.requirements import tablespaces_of
from tmi_ops.settings import PostgresSettings

_DATA, _POST_DATA = 3, 4
_RIGHTS = ("ACL", "DEFAULT ACL")
# These follow the object they refer to.
_ABOUT = ("COMMENT", "SECURITY LABEL")


@dataclass(frozen=True)
class Turn:
    """Consecutive entries of a dump that are loaded by the same role. `side_by_side`: in any order.

    `rights`: they are privileges on system objects.
    """

    dump_ids: tuple[int, ...]
    by_superuser: bool
    side_by_side: bool = False
    rights: bool = False


def load_with_two_roles(address: PostgresSettings, dump: Path, programs: Programs, report: Report) -> None:
    """Restore an archive that was just made into the empty database that `address` names.

    Raises:
        ProgramError: pg_restore failed; the message quotes its output.
        DatabaseError: the server refuses the temporary role that loads the dump.
    """
    if not is_superuser(address):
        load_archive(address, dump, programs, report)
        return
    toc = read_toc(dump)
    turns, last = turns_of(toc, trusted_extensions(address))
    with (
        loading_role(address, address.database, tablespaces_of(toc.entries)) as loader,
        report.phase("restore", total=len(turns) + 1, unit="steps") as phase,
    ):
        for turn in turns:
            _load(address if turn.by_superuser else loader, dump, programs, turn)
            phase.advance(1)
        own = tuple(entry for entry in toc.entries if entry.dump_id not in last.dump_ids)
        give_owners_and_rights(address, replace(toc, entries=own))
        if last.dump_ids:
            _load(address, dump, programs, last)
        phase.advance(1)


def turns_of(toc: Toc, trusted: Collection[str]) -> tuple[tuple[Turn, ...], Turn]:
    """Assign entries to roles, in the dump's order. Pure.

    Args:
        trusted: extensions that the server lets ordinary roles create.

    Returns:
        The turns before owners and privileges are set, and one for afterwards.
    """
    whose = _whose(toc, trusted)
    ordered = order_matters(toc)
    entries = (entry for entry in toc.entries if entry.desc not in _RIGHTS)
    turns = []
    for (by_superuser, section), group in groupby(entries, lambda one: (whose[one.dump_id], _section(one))):
        free = section == _POST_DATA or (section == _DATA and not ordered)
        turns.append(Turn(tuple(one.dump_id for one in group), by_superuser, free))
    powerful = tuple(one.dump_id for one in toc.entries if one.desc in _RIGHTS and whose[one.dump_id])
    return tuple(turns), Turn(powerful, by_superuser=True, rights=True)


def _whose(toc: Toc, trusted: Collection[str]) -> dict[int, bool]:
    """By dump id, whether only a superuser can load it."""
    tables = {(entry.namespace, entry.tag) for entry in toc.of_kind("TABLE")}
    found: dict[int, bool] = {}
    for entry in toc.entries:
        of_an_extension = entry.desc == "TABLE DATA" and (entry.namespace, entry.tag) not in tables
        about = entry.desc in _ABOUT and any(found.get(number, False) for number in entry.dependencies)
        found[entry.dump_id] = is_of_superusers(entry, trusted) or of_an_extension or about
    return found


def _section(entry: TocEntry) -> int:
    """Entries without a section, such as the encoding, are loaded first."""
    return entry.section if entry.section in (_DATA, _POST_DATA) else 0


def _load(address: PostgresSettings, dump: Path, programs: Programs, turn: Turn) -> None:
    with tempfile.TemporaryDirectory(prefix="turn-", dir=dump.parent) as directory:
        listed = Path(directory) / "list"
        listed.write_text("".join(_lines(turn.dump_ids)))
        argv: Sequence[str | Path] = [
            programs.path("pg_restore"),
            "--no-password",
            "--exit-on-error",
            "--no-owner",
            *([] if turn.rights else ["--no-privileges"]),
            f"--dbname={address.database}",
            f"--use-list={listed}",
            *([f"--jobs={RESTORE_JOBS}"] if turn.side_by_side else []),
            dump,
        ]
        loader_into(address, programs, dump).run(argv)


def _lines(dump_ids: Sequence[int]) -> Iterator[str]:
    """In the format of `pg_restore --list`, without the comments."""
    return (f"{number};\n" for number in dump_ids)
