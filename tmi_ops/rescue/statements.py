"""Removes statements from pg_dump's script, by parsing it, never by matching its text.

The tables' owner chooses the names and literals in a script. A pattern could be tricked into splitting one of them, and
its content would be executed. PostgreSQL's own scanner and parser cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Schema and name.
Relation = tuple[str, str]


def without_attaching(script: str, relations: frozenset[Relation]) -> str:
    """Without the statements that attach these tables and indexes as partitions."""
    return _without(script, lambda command: _attached(command) in relations)


def without_foreign_keys(script: str) -> str:
    """Without the statements that add a foreign key."""
    return _without(script, _adds_foreign_key)


def _without(script: str, is_left_out: Callable[[Any], bool]) -> str:
    import postgast  # needs much memory, and few rescues recreate a table

    statements = [one.strip() for one in postgast.split(script, method="scanner")]
    return "".join(f"{one};\n" for one in statements if not any(map(is_left_out, _altering(one))))


def _altering(statement: str) -> Iterator[Any]:
    """The commands of an ALTER statement; none for other statements, and for syntax newer than the parser."""
    import postgast

    try:
        tree = postgast.parse(statement)
    except postgast.PgQueryError:
        return
    for raw in tree.stmts:
        if raw.stmt.WhichOneof("node") == "alter_table_stmt":
            for command in raw.stmt.alter_table_stmt.cmds:
                yield command.alter_table_cmd


def _attached(command: Any) -> Relation | None:
    import postgast

    if command.subtype != postgast.pg_query_pb2.AT_AttachPartition:
        return None
    name = getattr(command, "def").partition_cmd.name
    return name.schemaname, name.relname


def _adds_foreign_key(command: Any) -> bool:
    import postgast

    adds = command.subtype == postgast.pg_query_pb2.AT_AddConstraint
    return bool(adds and getattr(command, "def").constraint.contype == postgast.pg_query_pb2.CONSTR_FOREIGN)
