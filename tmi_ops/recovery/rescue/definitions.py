"""Tables that were dropped, created again as they were: columns, keys, indexes, constraints, triggers, owner, grants.

The words are pg_dump's own, asked of the past. What a DROP ... CASCADE took along comes back as well: views over the
table, and foreign keys of other tables that referred to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.programs import programs_at_least, run_program
from tmi_ops.recovery.rescue.pairs import Pair
from tmi_ops.recovery.rescue.session import Sides
from tmi_ops.recovery.rescue.shape import ForeignKey

# Everything that reads one of these tables through a view, and through views of views.
_VIEWS_OVER = """
WITH RECURSIVE over AS (
    SELECT %(oids)s::regclass[]::oid[] AS relations, ARRAY[]::oid[] AS found
    UNION
    SELECT ARRAY(SELECT DISTINCT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = ANY (relations) AND r.ev_class <> ALL (relations || found)),
           found || relations
    FROM over WHERE relations <> ARRAY[]::oid[]
)
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND c.oid = ANY (SELECT unnest(relations) FROM over) ORDER BY c.oid
"""


@dataclass(frozen=True)
class Definitions:
    """SQL that creates what is gone (`before` rows are written), and SQL that completes it (`after`)."""

    before: str = ""
    after: str = ""
    foreign_keys: tuple[ForeignKey, ...] = ()
    words: tuple[str, ...] = ()

    def create(self, now: psycopg.Connection[Any]) -> None:
        """Tables and sequences, without indexes and constraints, so that the rows are written fast."""
        run_script(now, self.before)

    def complete(self, now: psycopg.Connection[Any]) -> None:
        """Indexes, constraints, triggers; and the foreign keys of other tables that had gone with the table."""
        run_script(now, self.after)
        for key in self.foreign_keys:
            now.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                    key.child.identifier, sql.Identifier(key.name), sql.SQL(key.definition)
                )
            )


def lost_definitions(sides: Sides, lost: Sequence[Pair]) -> Definitions:
    """What it takes to have these tables again.

    Raises:
        ProgramError: there is no pg_dump for the past's version, or it failed.
    """
    if not lost:
        return Definitions()
    tables = [pair.name for pair in lost]
    views = lost_views(sides, tables)
    keys = tuple(
        key
        for key in sides.then.foreign_keys
        if key.parent in tables and key.child not in tables and key.child in sides.living.tables
    )
    return Definitions(
        before=dumped(sides, "pre-data", [*tables, *views]),
        after=dumped(sides, "post-data", [*tables, *views]),
        foreign_keys=keys,
        words=(
            *(f"the table {name}" for name in tables),
            *(f"the view {name}" for name in views),
            *(f"the foreign key {key.name} of {key.child}" for key in keys),
        ),
    )


def lost_views(sides: Sides, relations: Sequence[TableName]) -> list[TableName]:
    """Views of then over these relations, and views over those, that are not there now."""
    names = [relation.identifier.as_string(sides.past) for relation in relations]
    over = [TableName(*row) for row in sides.past.execute(_VIEWS_OVER.encode(), {"oids": names}).fetchall()]
    return [view for view in over if not is_there(sides, view.identifier.as_string(sides.now))]


def is_there(sides: Sides, relation: str) -> bool:
    """Whether the living database has a relation of this name, qualified and quoted."""
    row = sides.now.execute("SELECT to_regclass(%s)", [relation]).fetchone()
    return row is not None and row[0] is not None


def dumped(sides: Sides, section: str, relations: Sequence[TableName]) -> str:
    """pg_dump's script for one section of these relations: `pre-data` makes them, `post-data` completes them."""
    programs = programs_at_least(sides.past.info.server_version // 10000, sides.bindir)
    said = run_program(
        [
            programs.path("pg_dump"),
            "--no-password",
            "--schema-only",
            f"--section={section}",
            *(f"--table={relation.identifier.as_string(sides.past)}" for relation in relations),
        ],
        env=libpq_environment(sides.past_address),
    )
    # Words to psql, not to the server: recent versions guard a dump with \restrict.
    return "\n".join(line for line in said.splitlines() if not line.startswith("\\"))


def run_script(now: psycopg.Connection[Any], script: str) -> None:
    """pg_dump's script sets the session up for itself; afterwards it is again as it was."""
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
