"""The tables of a database, including partitioned ones, and the files of their rows, from a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tmi_ops.backup.snapshot import TableName
from tmi_ops.postgres.connections import connect
from tmi_ops.rescue.wal_events import File
from tmi_ops.settings import PostgresSettings

_RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname, (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       pg_relation_filenode(c.oid)::bigint, CASE WHEN c.relispartition THEN i.inhparent::bigint END,
       c.relkind = 'p', pg_table_is_visible(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
WHERE c.relkind IN ('r', 'p')"""


@dataclass(frozen=True)
class Relation:
    """A table.

    `file`: has its rows; None if it is partitioned. `whole`: the oid of the table that it is a partition of. `visible`:
    its name needs no schema.
    """

    oid: int
    name: TableName
    file: File | None = None
    whole: int | None = None
    visible: bool = True


@dataclass(frozen=True)
class Relations:
    """The tables of one database, by oid, at one moment."""

    by_oid: Mapping[int, Relation]

    def find(self, words: str) -> Relation | None:
        """By `schema.table`, or by the name alone if it needs no schema or only one schema has it."""
        for relation in self.by_oid.values():
            if str(relation.name) == words:
                return relation
        named = [relation for relation in self.by_oid.values() if relation.name.name == words]
        seen = [relation for relation in named if relation.visible]
        return (seen or named)[0] if len(seen or named) == 1 else None

    def family(self, relation: Relation) -> tuple[Relation, ...]:
        """The table itself, its partitions, their partitions, and so on."""
        parts = (one for one in self.by_oid.values() if one.whole == relation.oid)
        return (relation, *(member for part in parts for member in self.family(part)))


def read_relations(address: PostgresSettings) -> Relations:
    """Raises DatabaseError: the database cannot be reached."""
    with connect(address) as connection:
        rows = connection.execute(_RELATIONS).fetchall()
    return Relations(
        {
            oid: Relation(
                oid, TableName(schema, name), None if partitioned else File(database, file), whole, visible=visible
            )
            for oid, schema, name, database, file, whole, partitioned, visible in rows
            if partitioned or file is not None
        }
    )
