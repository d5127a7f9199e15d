"""A small database with everything a dump can lose, for the tests of backup and recovery."""

from __future__ import annotations

from psycopg import sql

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings

ROWS = 2000

_STATEMENTS = """
CREATE SCHEMA archive;
CREATE TABLE threat_models (id varchar(36) PRIMARY KEY, name text NOT NULL, score numeric(3,1), tags jsonb,
                            created_at timestamptz NOT NULL, picture bytea);
CREATE TABLE threats (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                      threat_model_id varchar(36) NOT NULL REFERENCES threat_models ON DELETE CASCADE,
                      severity text CHECK (severity IS NULL OR severity IN ('Low', 'High')));
CREATE TABLE archive."Odd ""name"" x" ("Col 1" float8, note text);
CREATE TABLE audit (id serial PRIMARY KEY, what text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'append only'; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE VIEW high AS SELECT * FROM threats WHERE severity = 'High';
CREATE INDEX idx_threats_model ON threats (threat_model_id);
CREATE SEQUENCE ticket START 100;
"""

_ROWS = """
INSERT INTO threat_models
SELECT md5(i::text), 'model ' || i, (i % 100) / 10.0, jsonb_build_object('n', i, 'text', repeat('x', i % 50)),
       '2026-01-01'::timestamptz + i * interval '1 minute', decode(md5(i::text), 'hex')
FROM generate_series(1, {rows}) i;
INSERT INTO threats (threat_model_id, severity)
SELECT md5((1 + i % {rows})::text), CASE i % 3 WHEN 0 THEN 'Low' WHEN 1 THEN 'High' END
FROM generate_series(1, 2 * {rows}) i;
INSERT INTO archive."Odd ""name"" x" VALUES (0.1 + 0.2, E'tab\\t newline\\n quote''s ü'), ('NaN', NULL), (-0.0, '');
INSERT INTO audit (what) SELECT 'entry ' || i FROM generate_series(1, 10) i;
SELECT nextval('ticket') FROM generate_series(1, 5);
"""


def fill_source(database: PostgresSettings, *, role: str | None = None, rows: int = ROWS) -> None:
    """Make the tables and fill them; with `role`, create it and let it own and read some."""
    with connect(database) as connection:
        connection.execute(_STATEMENTS)
        connection.execute(sql.SQL(_ROWS).format(rows=sql.Literal(rows)))
        if role is not None:
            name = sql.Identifier(role)
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'never in the store'").format(name))
            connection.execute(sql.SQL("GRANT SELECT, INSERT ON threats TO {}").format(name))
            connection.execute(sql.SQL("ALTER TABLE audit OWNER TO {}").format(name))


def drop_role(database: PostgresSettings, role: str) -> None:
    with connect(database) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
