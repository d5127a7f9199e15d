"""Loading a dump of our own by two roles in turns: what only a superuser may make, and everything else.

A database that is copied to its own server may hold what only a superuser made: an extension that is not trusted, an
event trigger, a function in C. These are made by the connecting role. All the rest, and with it every function of a
CHECK, an index or a view that a load calls, is made by a role that owns the new database and nothing else; owners and
rights come at the end (least_role.py). The dump must be one that pg_dump has just made for us: an entry of the first
kind is run as it stands.
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
# These follow what they are about.
_ABOUT = ("COMMENT", "SECURITY LABEL")


@dataclass(frozen=True)
class Turn:
    """Entries that follow each other in a dump and are loaded by the same role. `side_by_side`: their order is free.

    `rights`: they are rights on objects of PostgreSQL's own.
    """

    dump_ids: tuple[int, ...]
    by_superuser: bool
    side_by_side: bool = False
    rights: bool = False


def load_by_turns(address: PostgresSettings, dump: Path, programs: Programs, report: Report) -> None:
    """Restore an archive that was just made into the empty database that `address` names.

    Raises:
        ProgramError: pg_restore failed; its words are in the message.
        DatabaseError: the server does not let the role in that is made for the load.
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
    """Who loads what, in the dump's own order. Pure.

    Args:
        trusted: extensions that the server lets ordinary roles create.

    Returns:
        The turns before owners and rights of the database's own objects are given, and one for afterwards.
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
    """By dump id, whether only a superuser may load it."""
    tables = {(entry.namespace, entry.tag) for entry in toc.of_kind("TABLE")}
    found: dict[int, bool] = {}
    for entry in toc.entries:
        of_an_extension = entry.desc == "TABLE DATA" and (entry.namespace, entry.tag) not in tables
        about = entry.desc in _ABOUT and any(found.get(number, False) for number in entry.dependencies)
        found[entry.dump_id] = is_of_superusers(entry, trusted) or of_an_extension or about
    return found


def _section(entry: TocEntry) -> int:
    """What belongs to no section, such as the encoding, is loaded before everything else."""
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
    """As `pg_restore --list` writes them; what comes behind the semicolon is for people."""
    return (f"{number};\n" for number in dump_ids)
