"""What a dump needs on the server that it is loaded into, besides PostgreSQL: extensions and tablespaces.

On a server without them, the backup neither passes nor fails verification.
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

# Server messages about something missing on the server, regardless of what is loaded.
_LACKS = re.compile(
    r"extension \"[^\"]*\" is not available|is not supported (?:in|by) this build|could not access file|could not load"
    r" library|out of shared memory|No space left on device|tablespace \"[^\"]*\" does not exist"
)


class NotHereError(RecoveryError):
    """This server lacks something that the backup needs; the backup may be fine."""

    default_code = Code.NOT_HERE


@dataclass(frozen=True)
class Requirements:
    """Names of extensions and tablespaces."""

    extensions: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.extensions or self.tablespaces)


def requirements_of(fetched: FetchedBackup, database: DatabaseProperties) -> Requirements:
    """What the fetched dump and its database need; unknown for a plain dump of an earlier release."""
    own = {database.tablespace} if database.tablespace else set()
    archive = archive_of(fetched)
    entries = read_toc(archive).entries if archive is not None else ()
    return Requirements(
        frozenset(entry.tag for entry in entries if entry.desc == "EXTENSION"),
        tablespaces_of(entries) | own - {DEFAULT_TABLESPACE},
    )


def tablespaces_of(entries: Iterable[TocEntry]) -> frozenset[str]:
    """The tablespaces that these entries use, except the default one."""
    return frozenset(entry.tablespace for entry in entries) - {"", DEFAULT_TABLESPACE}


def missing_at(address: PostgresSettings, needed: Requirements) -> Requirements:
    """The requirements that the server does not meet."""
    with connect(address, "postgres") as connection:
        extensions = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions").fetchall()}
        tablespaces = {row[0] for row in connection.execute("SELECT spcname FROM pg_tablespace").fetchall()}
    return Requirements(needed.extensions - extensions, needed.tablespaces - tablespaces)


def make_tablespaces(address: PostgresSettings, names: frozenset[str]) -> None:
    """Create in-place tablespaces in a scratch cluster, as its superuser."""
    with connect(address, "postgres") as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        for name in sorted(names):
            connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(name)))


def require_extensions(missing: Requirements) -> None:
    """Refuse to load a dump whose extensions the server lacks.

    Raises:
        NotHereError: some are missing.
    """
    if missing.extensions:
        names = ", ".join(sorted(missing.extensions))
        raise NotHereError(
            f"The server lacks extensions that the backup needs: {names}.",
            detail="The backup may be fine; no result was recorded.",
            hint="install their packages (on Debian often postgresql-contrib or postgresql-NN-NAME) for the PostgreSQL "
            "installation that is used here, then try again",
        )


def not_here(error: ProgramError) -> NotHereError | None:
    """The failure as a NotHereError if its message blames this server; None if the dump may be at fault."""
    words = _LACKS.search(error.message)
    if words is None:
        return None
    return NotHereError(
        f"The backup could not be verified, because this server lacks something: {error.message}",
        detail="The backup may be fine; no result was recorded.",
        hint="install what is missing here, or verify the backup on a machine that is set up like the source",
    )
