"""What fell with a dropped table: all of it is there again, or the plan says that it will not be."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.rescue.selection import Selection, TableRows
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import Two, copied, definitions, made, run

pytestmark = pytest.mark.slow

ROLE = f"reader_{secrets.token_hex(4)}"
# The function of the table's own row type is what cannot come back; the policy of `others` reads the table.
SCHEMA = f"""
CREATE ROLE {ROLE};
CREATE TABLE things (id serial PRIMARY KEY, name text NOT NULL CHECK (name <> ''), kind integer UNIQUE, extra text);
CREATE TABLE others (id integer PRIMARY KEY DEFAULT nextval('things_id_seq'), thing integer,
                     next integer REFERENCES others DEFERRABLE INITIALLY DEFERRED);
INSERT INTO things (name, kind) SELECT 'thing ' || i, i FROM generate_series(1, 9) i;
INSERT INTO others SELECT i, i FROM generate_series(1, 9) i;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE others ADD FOREIGN KEY (thing) REFERENCES things (kind) ON DELETE CASCADE DEFERRABLE;
COMMENT ON TABLE things IS 'what there is'; COMMENT ON COLUMN things.name IS 'its name';
CREATE INDEX things_by_name ON things (lower(name)) INCLUDE (kind) WHERE kind > 2;
CREATE STATISTICS things_together ON name, kind FROM things;
CREATE VIEW named AS SELECT id, name FROM things;
CREATE VIEW "Named, again" WITH (security_barrier) AS SELECT name FROM named;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM named;
CREATE UNIQUE INDEX counted_once ON counted (count);
CREATE MATERIALIZED VIEW empty AS SELECT 1 FROM things WITH NO DATA;
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER loud AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION loud();
CREATE TRIGGER silent AFTER UPDATE ON things FOR EACH ROW EXECUTE FUNCTION loud();
ALTER TABLE things DISABLE TRIGGER silent;
CREATE RULE never AS ON DELETE TO named DO INSTEAD NOTHING;
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON things FOR SELECT TO {ROLE} USING (kind > 1);
ALTER TABLE others ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_things ON others AS RESTRICTIVE FOR UPDATE TO {ROLE}, CURRENT_USER
    USING (EXISTS (SELECT FROM things t WHERE t.kind = others.thing)) WITH CHECK (id > 0);
GRANT SELECT, INSERT ON things TO {ROLE}; GRANT UPDATE (extra) ON things TO {ROLE};
GRANT USAGE ON things_id_seq TO {ROLE};
GRANT SELECT ON named TO {ROLE}; GRANT SELECT ON counted TO PUBLIC;
CREATE PUBLICATION heard FOR TABLE others;
DO $$ BEGIN
    EXECUTE 'ALTER PUBLICATION heard ADD TABLE ONLY things' || CASE
        WHEN current_setting('server_version_num')::integer >= 150000 THEN ' (id, name) WHERE (id > 3)' ELSE '' END;
END $$;
CREATE FUNCTION first_word(things) RETURNS text LANGUAGE sql AS $$ SELECT split_part($1.name, ' ', 1) $$;
"""


@pytest.fixture
def two(server: PostgresSettings) -> Iterator[Two]:
    with made(server, SCHEMA) as past, copied(past) as now:
        yield Two(past, now)
    run(server, f"DROP ROLE {ROLE}")


def test_what_a_cascade_took_along_comes_back_and_what_does_not_is_named(two: Two) -> None:
    two.spoil("DROP TABLE things CASCADE; DELETE FROM others WHERE id = 3; INSERT INTO others VALUES (10, 9)")
    chosen = Selection((TableRows("things"), TableRows("others")))
    plan = two.planned(chosen)
    comes, stays = plan.notes
    for thing in (
        "the view public.named",
        "the view public.Named, again",
        "the content of public.counted",
        "the foreign key others_thing_fkey of public.others",
        "the policy of_things of public.others",
        "public.things in the publication heard",
        "the default of id of public.others",
    ):
        assert thing in comes
    assert stays.endswith("not restored: the function public.first_word(public.things).")
    rescued = two.rescue(chosen)
    assert "the table public.things" in rescued.recreated
    assert definitions(two.now) == definitions(two.past)
    assert two.is_as_then("things")
    assert two.value("SELECT count FROM counted") == 9
    assert two.value("SELECT count(*) FROM others") == 10
    assert two.value("INSERT INTO things (name) VALUES ('next') RETURNING id") == 10


def test_what_keeps_a_dropped_table_from_coming_back_is_a_line_of_the_plan(two: Two) -> None:
    two.spoil(
        "INSERT INTO others VALUES (10, NULL); DROP TABLE things CASCADE; DROP FUNCTION loud; "
        "UPDATE others SET thing = 99 WHERE id IN (3, 10)"
    )
    made_again, orphans = two.planned(Selection((TableRows("things"),))).barriers
    assert "public.things cannot be recreated: function public.loud() does not exist" in made_again.what
    assert "2 rows of public.others reference by thing rows of public.things that did not exist then" in orphans.what
    assert two.value("SELECT to_regclass('things')") is None
    # What comes back itself is no orphan.
    both = Selection((TableRows("things"), TableRows("others")), policy="take-past")
    assert "1 rows of public.others reference" in two.planned(both).barriers[1].what
    two.spoil("CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    two.spoil("UPDATE others SET thing = NULL WHERE id = 10")
    two.rescue(both)
    assert two.is_as_then("things")


def test_what_was_created_again_since_is_left_as_it_is(two: Two) -> None:
    two.spoil(
        "DROP TABLE things CASCADE; CREATE VIEW named AS SELECT 1 AS id; "
        "CREATE FUNCTION first_word(text) RETURNS text LANGUAGE sql AS 'SELECT 1'"
    )
    plan = two.planned(Selection((TableRows("things"),)))
    assert "public.named" not in plan.notes[0]
    assert "first_word(public.things)" in plan.notes[1]
