"""What a dump needs of the server that it is loaded into, beyond PostgreSQL itself: extensions and tablespaces.

A server without them says nothing of the backup: it is not disproved there, and not proven.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from tmi_ops.backup.archive.files import read_toc
from tmi_ops.backup.archive.toc import TocEntry
from tmi_ops.backup.properties import DatabaseProperties
from tmi_ops.error_codes import Code
from tmi_ops.errors import ProgramError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.new_database import DEFAULT_TABLESPACE
from tmi_ops.recovery.objects import archive_of
from tmi_ops.settings import PostgresSettings

# Words of a server that lacks something, whatever is loaded into it.
_LACKS = re.compile(
    r"extension \"[^\"]*\" is not available|is not supported (?:in|by) this build|could not access file|could not load"
    r" library|out of shared memory|No space left on device|tablespace \"[^\"]*\" does not exist"
)


class NotHereError(RecoveryError):
    """The server at hand lacks what the backup needs, which says nothing against the backup."""

    default_code = Code.NOT_HERE


@dataclass(frozen=True)
class Requirements:
    """Names of extensions and tablespaces."""

    extensions: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.extensions or self.tablespaces)


def requirements_of(fetched: FetchedBackup, database: DatabaseProperties) -> Requirements:
    """What the fetched dump and its database need; of a plain dump of an earlier release nothing is known."""
    own = {database.tablespace} if database.tablespace else set()
    archive = archive_of(fetched)
    entries = read_toc(archive).entries if archive is not None else ()
    return Requirements(
        frozenset(entry.tag for entry in entries if entry.desc == "EXTENSION"),
        tablespaces_of(entries) | own - {DEFAULT_TABLESPACE},
    )


def tablespaces_of(entries: Iterable[TocEntry]) -> frozenset[str]:
    """Where these put something, beside the database's own."""
    return frozenset(entry.tablespace for entry in entries) - {"", DEFAULT_TABLESPACE}


def missing_at(address: PostgresSettings, needed: Requirements) -> Requirements:
    """What of it the server lacks."""
    with connect(address, "postgres") as connection:
        extensions = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions").fetchall()}
        tablespaces = {row[0] for row in connection.execute("SELECT spcname FROM pg_tablespace").fetchall()}
    return Requirements(needed.extensions - extensions, needed.tablespaces - tablespaces)


def make_tablespaces(address: PostgresSettings, names: frozenset[str]) -> None:
    """Make tablespaces inside the data directory of a scratch cluster, as its superuser."""
    with connect(address, "postgres") as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        for name in sorted(names):
            connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(name)))


def require_extensions(missing: Requirements) -> None:
    """Refuse to load a dump whose extensions the server lacks.

    Raises:
        NotHereError: it lacks some.
    """
    if missing.extensions:
        names = ", ".join(sorted(missing.extensions))
        raise NotHereError(
            f"The server lacks extensions that the backup needs: {names}.",
            detail="This says nothing against the backup, and no verdict was recorded.",
            hint="install the packages that bring them (on Debian often postgresql-contrib or postgresql-NN-NAME) "
            "beside the PostgreSQL programs that are used here, then try again",
        )


def not_here(error: ProgramError) -> NotHereError | None:
    """The same failure as one of the server at hand, when its words say so; None where the dump may be at fault."""
    words = _LACKS.search(error.message)
    if words is None:
        return None
    return NotHereError(
        f"Not proven here, because the server lacks something: {error.message}",
        detail="This says nothing against the backup, and no verdict was recorded.",
        hint="mend what it names on this machine, or prove the backup on a machine set up as the source is",
    )
