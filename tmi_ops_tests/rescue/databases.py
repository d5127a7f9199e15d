"""Two databases with every kind of column, key and tie between tables that a rescue meets, and what they hold."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row

from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report, SilentReport
from tmi_ops.rescue.execution import Rescued, execute_rescue
from tmi_ops.rescue.planning import RescuePlan, plan_rescue
from tmi_ops.rescue.selection import Policy, Selection, TableRows
from tmi_ops.rescue.session import both_sides
from tmi_ops.settings import PostgresSettings

# people <- models <- parts is the common case; rooms and doors refer to one another, doors without deferring; lines
# have no key; history is append-only.
SCHEMA = """
CREATE TABLE people (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE, boss integer REFERENCES people ON DELETE SET NULL
);
CREATE TABLE models (
    id uuid PRIMARY KEY, owner integer NOT NULL REFERENCES people ON DELETE CASCADE, title text, alias text,
    total numeric, tags text[], document jsonb, body bytea, at timestamptz, ratio double precision,
    shout text GENERATED ALWAYS AS (upper(title)) STORED
);
CREATE UNIQUE INDEX one_alias ON models (lower(alias)) WHERE alias IS NOT NULL;
CREATE TABLE parts (
    model uuid REFERENCES models ON DELETE CASCADE, n bigint GENERATED ALWAYS AS IDENTITY, "row_id" text,
    digest text, PRIMARY KEY (model, n)
);
CREATE TABLE rooms (id integer PRIMARY KEY, door integer NOT NULL);
CREATE TABLE doors (id integer PRIMARY KEY, room integer NOT NULL REFERENCES rooms ON DELETE CASCADE);
CREATE TABLE lines (line text, n integer);
CREATE TABLE history (id integer PRIMARY KEY, what text NOT NULL);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$;
INSERT INTO people (name, boss) SELECT 'person ' || i, nullif(i / 2, 0) FROM generate_series(1, 12) i;
INSERT INTO models
    SELECT md5(i::text)::uuid, 1 + i % 12, 'Model ' || i, CASE WHEN i % 3 = 0 THEN 'Alias-' || i END, i / 7.0,
           ARRAY['a, "b"', NULL, 'x' || i], jsonb_build_object('i', i, 'deep', ARRAY[i, i]), sha256(i::text::bytea),
           '2026-11-24 01:02:03.456789+00'::timestamptz + i * interval '1 hour', sqrt(i)
    FROM generate_series(1, 30) i;
INSERT INTO parts (model, "row_id", digest)
    SELECT id, 'part ' || k, E'tab\\t, newline\\n and \\\\' FROM models, generate_series(1, 3) k;
INSERT INTO rooms SELECT i, i FROM generate_series(1, 6) i;
INSERT INTO doors SELECT i, i FROM generate_series(1, 6) i;
ALTER TABLE rooms ADD FOREIGN KEY (door) REFERENCES doors ON DELETE CASCADE;
INSERT INTO lines SELECT 'same', 1 FROM generate_series(1, 4);
INSERT INTO lines SELECT 'line ' || i, i FROM generate_series(1, 6) i;
INSERT INTO history SELECT i, 'event ' || i FROM generate_series(1, 8) i;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON history FOR EACH ROW EXECUTE FUNCTION refuse();
"""
# A row each: relations with owner, rights and place; columns; constraints; indexes; triggers; rules; policies;
# statistics; publications; comments.
DEFINED = """
WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace)
SELECT concat_ws(' ', relkind, oid::regclass, relowner::regrole, relacl::text, relrowsecurity, relispopulated,
                 pg_get_expr(relpartbound, oid), (SELECT array_agg(inhparent::regclass) FROM pg_inherits
                                                  WHERE inhrelid = oid)::text) FROM ours
UNION ALL SELECT concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                           attacl::text, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
FROM ours JOIN pg_attribute ON attrelid = ours.oid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid), conparentid <> 0, conislocal,
                           coninhcount, confrelid::regclass)
FROM pg_constraint c JOIN ours ON conrelid = ours.oid
UNION ALL SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid, indisreplident)
FROM pg_index JOIN ours ON indrelid = ours.oid
UNION ALL SELECT concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
FROM pg_trigger t JOIN ours ON tgrelid = ours.oid WHERE NOT tgisinternal
UNION ALL SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN ours ON ev_class = ours.oid
UNION ALL SELECT p::text FROM pg_policies p
UNION ALL SELECT pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s
UNION ALL SELECT p::text FROM pg_publication_tables p
UNION ALL SELECT concat_ws(' ', oid::regclass, obj_description(oid)) FROM ours
"""


@dataclass
class Two:
    """The past and the living database; `plan` is what the last rescue was going to do."""

    past: PostgresSettings
    now: PostgresSettings
    plan: RescuePlan | None = field(default=None)

    def spoil(self, script: str) -> None:
        """The accident: statements in the living database."""
        run(self.now, script)

    def rescue(self, selection: Selection, report: Report | None = None) -> Rescued:
        """Plan and do."""
        with both_sides(self.past, self.now) as sides:
            self.plan = plan_rescue(sides, selection, "the past", SilentReport())
            return execute_rescue(sides, self.plan, report or SilentReport())

    def planned(self, selection: Selection) -> RescuePlan:
        """Plan, and do nothing."""
        with both_sides(self.past, self.now) as sides:
            return plan_rescue(sides, selection, "the past", SilentReport())

    def then_rows(self, table: str) -> list[dict[str, Any]]:
        return rows(self.past, table)

    def now_rows(self, table: str) -> list[dict[str, Any]]:
        return rows(self.now, table)

    def is_as_then(self, *tables: str) -> bool:
        """Whether these tables hold what they held."""
        return all(self.then_rows(table) == self.now_rows(table) for table in tables)

    def value(self, query: str) -> object:
        """The one value of a query of the living database."""
        with connect(self.now) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def rows(address: PostgresSettings, table: str) -> list[dict[str, Any]]:
    """A table's rows in an order that is always the same."""
    with connect(address) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"SELECT * FROM {table} t ORDER BY t::text".encode()).fetchall()


def run(address: PostgresSettings, script: str) -> None:
    with connect(address) as connection:
        connection.execute(script.encode())


@contextmanager
def made(server: PostgresSettings, schema: str) -> Iterator[PostgresSettings]:
    """A database with this in it, for the length of a `with` block."""
    address = server.model_copy(update={"database": f"past_{secrets.token_hex(4)}"})
    run(server, f'CREATE DATABASE "{address.database}"')
    try:
        run(address, schema)
        yield address
    finally:
        dropped(address)


def definitions(address: PostgresSettings) -> set[str]:
    """Everything that is defined about the tables and views of `public`: each thing in PostgreSQL's own words."""
    with connect(address) as connection:
        return {row[0] for row in connection.execute(DEFINED.encode()).fetchall()}


@contextmanager
def copied(past: PostgresSettings) -> Iterator[PostgresSettings]:
    """A copy of the past for the length of a `with` block."""
    now = past.model_copy(update={"database": f"now_{secrets.token_hex(4)}"})
    with connect(past, "postgres") as connection:
        connection.execute(f'CREATE DATABASE "{now.database}" TEMPLATE "{past.database}"')
    try:
        yield now
    finally:
        dropped(now)


def dropped(address: PostgresSettings) -> None:
    with connect(address, "postgres") as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{address.database}" WITH (FORCE)')


Of = Callable[[str], Two]
"""Makes a past of this SQL, and a living copy of it."""


def all_of(table: str, policy: Policy = "stop") -> Selection:
    return Selection((TableRows(table),), policy=policy)


def conflicts(plan: RescuePlan) -> list[tuple[str, int]]:
    """(kind, rows) of each."""
    return [(one.kind, one.rows) for one in plan.conflicts]
