"""Every definition of a database, in pg_dump's own words: the entries of an archive's table of contents.

pg_dump knows every kind of object that PostgreSQL has; a restored copy is dumped again and compared entry by entry
(recovery/definitions.py). What pg_dump does not write stands in `backup/undumped.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.backup.archive.reader import ArchiveReader, TocRead
from tmi_ops.backup.archive.toc import Toc, TocEntry
from tmi_ops.backup.dump import definitions_command, stream_program
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.server import read_server
from tmi_ops.settings import PostgresSettings

# Data, what is compared as data of ours (backup/properties.py, large objects), and the archive's own preliminaries.
_NO_DEFINITIONS = frozenset(
    {
        "BLOB",
        "BLOB COMMENTS",
        "BLOB METADATA",
        "BLOBS",
        "DATABASE",
        "DATABASE PROPERTIES",
        "ENCODING",
        "MATERIALIZED VIEW DATA",
        "SEARCHPATH",
        "SEQUENCE SET",
        "STATISTICS DATA",
        "STDSTRINGS",
        "TABLE DATA",
    }
)
_NO_DEFINITION_OF = ("LARGE OBJECT ", "LARGE OBJECTS ", "DATABASE ")  # grants, comments, labels on them
ATTACHED = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})  # their owner is that of the object they are about


@dataclass(frozen=True)
class Definition:
    """One object, or one thing said of an object (a default, a grant, a comment).

    `kind`, `schema` and `name` are pg_dump's: `name` tells it apart within its schema and kind, as `f(integer)` or
    `table trigger`, and is "" in none. `text` are the SQL statements that make it.
    """

    kind: str
    schema: str
    name: str
    owner: str
    tablespace: str
    access_method: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is called. Two objects may be called the same; then they are told apart by their text."""
        return self.kind, self.schema, self.name


def definitions_of(toc: Toc) -> tuple[Definition, ...]:
    """The definitions in an archive's table of contents."""
    return tuple(_definition(entry) for entry in toc.entries if _is_definition(entry))


def live_definitions(postgres: PostgresSettings, programs: Programs) -> tuple[Definition, ...]:
    """The definitions of a running database.

    Raises:
        DatabaseError: the server could not be reached.
        ProgramError: pg_dump failed.
        ArchiveError: what it wrote cannot be read.
    """
    with connect(postgres) as connection:
        server = read_server(connection)
    toc: Toc | None = None
    reader = ArchiveReader()
    environment = libpq_environment(postgres, server_major=server.major)
    for chunk in stream_program(definitions_command(programs, server.encoding), environment):
        for event in reader.feed(chunk):
            toc = event.toc if isinstance(event, TocRead) else toc
    reader.close()
    if toc is None:  # an archive without one is not complete, which `close` refuses
        raise AssertionError
    return definitions_of(toc)


def _is_definition(entry: TocEntry) -> bool:
    return entry.desc not in _NO_DEFINITIONS and not (
        entry.desc in ATTACHED and entry.tag.startswith(_NO_DEFINITION_OF)
    )


def _definition(entry: TocEntry) -> Definition:
    return Definition(
        kind=entry.desc,
        schema=entry.namespace,
        name=entry.tag,
        owner="" if entry.desc in ATTACHED else entry.owner,
        tablespace=entry.tablespace,
        access_method=entry.access_method,
        text=entry.definition,
    )
