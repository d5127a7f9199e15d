"""Recreates dropped tables: columns, keys, indexes, constraints, triggers, owner, grants.

The statements come from pg_dump, run on the past. `dropped.py` finds what DROP ... CASCADE dropped with them.

Statements are removed from pg_dump's script by parsing it, never by matching its text. The tables' owner chooses the
names and literals in a script. A pattern could be tricked into splitting one of them, and its content would be
executed. PostgreSQL's own scanner and parser cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tmi_ops.backup.snapshot import TableName
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.programs import programs_at_least, run_program
from tmi_ops.rescue.dropped import DroppedObjects, dropped_with
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides

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


@dataclass(frozen=True)
class Definitions:
    """SQL that creates dropped tables (`before` their rows are written) and completes them (`after`)."""

    before: str = ""
    after: str = ""
    dropped: DroppedObjects = field(default=DroppedObjects())

    def create(self, now: psycopg.Connection[Any]) -> None:
        """Create tables and sequences, without indexes and constraints, so that writing rows is fast."""
        run_script(now, self.before)

    def rehearse(self, now: psycopg.Connection[Any]) -> None:
        """Create everything except what would lock other tables; the caller rolls it back.

        Raises:
            psycopg.Error: it cannot be recreated.
        """
        run_script(now, self.before)
        run_script(now, without_foreign_keys(self.after) if self.after else "")

    def complete(self, now: psycopg.Connection[Any]) -> None:
        """Create indexes, constraints and triggers, and repair what other objects lost with the tables."""
        run_script(now, self.after)
        for repair in self.dropped.repairs:
            now.execute(repair.statement.encode())


def lost_definitions(sides: Sides, lost: Sequence[Pair]) -> Definitions:
    """The SQL that recreates these tables.

    Raises:
        ProgramError: there is no pg_dump for the past's version, or it failed.
    """
    dropped = dropped_with(sides, [pair.name for pair in lost])
    if not dropped.relations:
        return Definitions()
    relations = [*dropped.relations, *dropped.views]
    # A partition of a live table is attached when it is complete; earlier, it would get indexes of its own.
    attached = frozenset(name for attachment in dropped.attachments for name in attachment.names)
    scripts = (dumped(sides, section, relations) for section in ("pre-data", "post-data"))
    before, after = (without_attaching(script, attached) if attached else script for script in scripts)
    return Definitions(before, after, dropped)


def dumped(sides: Sides, section: str, relations: Sequence[TableName]) -> str:
    """pg_dump's script for one section of these relations: `pre-data` creates them, `post-data` completes them."""
    programs = programs_at_least(sides.past.info.server_version // 10000, sides.bindir)
    said = run_program(
        [
            programs.path("pg_dump"),
            "--no-password",
            "--schema-only",
            f"--section={section}",
            *(f"--table={name.identifier.as_string(sides.past)}" for name in relations),
        ],
        env=libpq_environment(sides.past_address),
    )
    return without_guard(said)


def without_guard(script: str) -> str:
    """Remove psql's `\\restrict KEY` and `\\unrestrict KEY`, with which recent versions enclose a dump."""
    found = re.match(r"(?:--.*\n|\n)*\\restrict (\w+)\n", script)
    guards = (f"\\restrict {found[1]}", f"\\unrestrict {found[1]}") if found else ()
    return "\n".join(line for line in script.split("\n") if line not in guards)


def run_script(now: psycopg.Connection[Any], script: str) -> None:
    """Run a script of pg_dump, and restore the session settings that it changes."""
    if not script:
        return
    with now.transaction():
        before = now.execute(
            "SELECT array_agg(ARRAY[name, setting]) FROM pg_settings WHERE name = ANY (%s)", [list(_SET_BY_PG_DUMP)]
        ).fetchone()
        now.execute(script.encode())
        for name, value in (before[0] or []) if before else []:
            now.execute("SELECT set_config(%s, %s, false)", [name, value])


_SET_BY_PG_DUMP = (
    "check_function_bodies",
    "client_encoding",
    "client_min_messages",
    "default_table_access_method",
    "default_tablespace",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "transaction_timeout",
    "xmloption",
)
