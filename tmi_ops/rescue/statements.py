"""pg_dump's script statement by statement, so that some can be left out; told by what they are, never by their words.

Names and literals in a script are whatever the tables' owner chose: a pattern over its text could be led to cut one of
them in two, and what stands in it would be run. PostgreSQL's own scanner and parser are not.
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
    import postgast  # its tables of messages need memory, and few rescues bring a table back

    statements = [one.strip() for one in postgast.split(script, method="scanner")]
    return "".join(f"{one};\n" for one in statements if not any(map(is_left_out, _altering(one))))


def _altering(statement: str) -> Iterator[Any]:
    """The commands of an ALTER statement; of any other, and of one that is newer than the parser, none."""
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
