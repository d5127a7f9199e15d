"""Every definition of a database as pg_dump writes it: the entries of an archive's table of contents.

pg_dump knows every kind of object that PostgreSQL has, so a restored copy is dumped again and compared entry by entry
(recovery/definitions.py). `backup/undumped.py` covers what pg_dump does not write.
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

# Data, what we compare as data (backup/properties.py, large objects), and the archive's own preliminaries.
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
ATTACHED = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})  # their owner is that of the object they belong to


@dataclass(frozen=True)
class Definition:
    """One object, or one attribute of an object (a default, a grant, a comment).

    `kind`, `schema` and `name` are pg_dump's. `name` identifies it within its schema and kind, as `f(integer)` or
    `table trigger`; `schema` is "" for an object outside any. `text` holds the SQL statements that create it.
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
        """Its identity. Two objects may share one; their text then distinguishes them."""
        return self.kind, self.schema, self.name


def definitions_of(toc: Toc) -> tuple[Definition, ...]:
    """The definitions in an archive's table of contents."""
    return tuple(_definition(entry) for entry in toc.entries if _is_definition(entry))


def live_definitions(postgres: PostgresSettings, programs: Programs) -> tuple[Definition, ...]:
    """The definitions of a running database.

    Raises:
        DatabaseError: the server could not be reached.
        ProgramError: pg_dump failed.
        ArchiveError: its output cannot be read.
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
    if toc is None:  # a complete archive has one; `close` refuses any other
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
