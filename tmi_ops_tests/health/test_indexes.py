"""Indexes that are broken, doubled, unused or missing, made so for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.probes.index_use import OBSERVED_LONG_ENOUGH_S, UnindexedKeys, UnusedIndexes, judge_unused
from tmi_ops.health.probes.indexes import DuplicateIndexes, InvalidIndexes
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.health.conftest import FLUSH, eventually, in_background, probe, run_on

Open = Callable[..., psycopg.Connection[Any]]
Run = Callable[..., list[tuple[Any, ...]]]


def test_an_index_whose_concurrent_build_failed_is_found_and_the_remedy_mends_it(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE TABLE users (email text)", "INSERT INTO users VALUES ('a'), ('a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql("CREATE UNIQUE INDEX CONCURRENTLY users_email ON users (email)")
    found = probe(database, "invalid_indexes")
    assert found.outcome is Outcome.WARNING
    assert found.answer.advice.sql == ("REINDEX INDEX CONCURRENTLY public.users_email;",)
    sql("DELETE FROM users WHERE ctid = '(0,1)'", *found.answer.advice.sql)
    assert probe(database, "invalid_indexes").answer.seen == "none"


def test_what_a_broken_off_rebuild_left_beside_a_valid_index_is_to_be_dropped(
    database: PostgresSettings, sql: Run, another_session: Open
) -> None:
    leave_ccnew(database, sql, another_session)
    found = probe(database, "invalid_indexes")
    assert isinstance(found.reading, InvalidIndexes)
    leftover = found.reading.indexes[0]
    assert (leftover.name, leftover.original) == ("public.carts_id_ccnew", "public.carts_id")
    assert found.answer.advice.sql == ("DROP INDEX CONCURRENTLY public.carts_id_ccnew;",)
    sql(*found.answer.advice.sql)
    assert probe(database, "invalid_indexes").outcome is Outcome.OK


def leave_ccnew(database: PostgresSettings, sql: Run, another_session: Open) -> None:
    """Break a REINDEX CONCURRENTLY off while it waits for a transaction to end."""
    sql("CREATE TABLE carts (id int)", "CREATE INDEX carts_id ON carts (id)")
    holder, builder = another_session(), another_session()
    run_on(holder, "BEGIN", "INSERT INTO carts VALUES (1)")
    with in_background(builder, "REINDEX INDEX CONCURRENTLY carts_id"):
        building = eventually(lambda: reading_of(probe(database, "invalid_indexes")).indexes)
        assert building[0].being_built
        assert probe(database, "invalid_indexes").answer.seen == "none; 1 being built"
    run_on(holder, "ROLLBACK")


def reading_of(found: Any) -> InvalidIndexes:
    assert isinstance(found.reading, InvalidIndexes)
    return found.reading


def test_of_two_equal_indexes_the_one_without_a_constraint_is_superfluous(database: PostgresSettings, sql: Run) -> None:
    sql(
        "CREATE TABLE users (id int PRIMARY KEY, email text, name text)",
        "CREATE UNIQUE INDEX users_id ON users (id)",
        "CREATE INDEX users_email ON users (email)",
        "CREATE INDEX users_email_pattern ON users (email text_pattern_ops)",
        "CREATE INDEX users_email_partial ON users (email) WHERE name IS NULL",
        "CREATE INDEX users_email_lower ON users (lower(email))",
        'CREATE INDEX "users Email lower" ON users (lower(email))',
        "CREATE INDEX users_email_name ON users (email) INCLUDE (name)",
    )
    found = probe(database, "duplicate_indexes")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, DuplicateIndexes)
    assert {(one.name, one.same_as) for one in found.reading.indexes} == {
        ("public.users_id", "public.users_pkey"),
        ("public.users_email_lower", 'public."users Email lower"'),
    }
    sql(*found.answer.advice.sql)
    assert probe(database, "duplicate_indexes").outcome is Outcome.OK


def test_an_index_no_query_used_is_judged_only_after_long_enough(database: PostgresSettings, sql: Run) -> None:
    sql(
        "CREATE TABLE threats (id int PRIMARY KEY, name text, alias text)",
        "CREATE INDEX threats_name ON threats (name)",
        "CREATE INDEX threats_alias ON threats (alias)",
        "INSERT INTO threats SELECT n, n, n FROM generate_series(1, 50000) n",
        "SET enable_seqscan = off",
        "SELECT * FROM threats WHERE alias = '7'",
        FLUSH,
    )
    young = probe(database, "unused_indexes", "0.1,")
    assert (young.outcome, young.cause) == (Outcome.UNKNOWN, Cause.TOO_EARLY)
    assert isinstance(young.reading, UnusedIndexes)
    assert [index.name for index in young.reading.indexes] == ["public.threats_name"]
    used = {index.name: index.scans for index in young.reading.most_used}
    assert used["public.threats_alias"] == 1
    assert young.reading.rows()[0]["scans"] == 0
    later = judge_unused(replace(young.reading, observed_s=OBSERVED_LONG_ENOUGH_S), young.thresholds)
    assert later.outcome is Outcome.WARNING
    assert later.advice.sql == ("DROP INDEX CONCURRENTLY public.threats_name;",)


@pytest.mark.slow
def test_a_foreign_key_of_a_large_table_without_an_index_is_found_and_the_remedy_gives_it_one(
    database: PostgresSettings, sql: Run
) -> None:
    sql(
        "CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b))",
        "INSERT INTO parent VALUES (1, 1)",
        "CREATE TABLE child (id int, pa int, pb int, FOREIGN KEY (pa, pb) REFERENCES parent)",
        "CREATE TABLE small (pa int, pb int, FOREIGN KEY (pa, pb) REFERENCES parent)",
        "INSERT INTO child SELECT n, 1, 1 FROM generate_series(1, 50000) n",
        "CREATE INDEX partial ON child (pa, pb) WHERE pa > 7",
        "CREATE INDEX not_leading ON child (id, pa, pb)",
    )
    found = probe(database, "foreign_keys_without_index")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, UnindexedKeys)
    assert [key.table_name for key in found.reading.keys] == ["public.child", "public.small"]
    assert found.answer.advice.sql == ("CREATE INDEX CONCURRENTLY ON public.child (pa, pb);",)
    sql("CREATE INDEX other_order ON child (pb, pa, id)")
    assert probe(database, "foreign_keys_without_index").answer.seen == "none on a large table; 1 on small tables"


def test_an_index_that_guarantees_something_else_or_that_replication_goes_by_is_not_superfluous(
    database: PostgresSettings, sql: Run
) -> None:
    """Following the advice must break nothing: neither what is unique, nor replication, nor ON CONFLICT."""
    sql(
        "CREATE TABLE a (id int PRIMARY KEY, email text NOT NULL, code text)",
        "CREATE UNIQUE INDEX a_replica ON a (id)",
        "ALTER TABLE a REPLICA IDENTITY USING INDEX a_replica",
        "ALTER TABLE a ADD CONSTRAINT a_later UNIQUE (email) DEFERRABLE INITIALLY DEFERRED",
        "CREATE UNIQUE INDEX a_at_once ON a (email)",
        "CREATE UNIQUE INDEX a_distinct ON a (code)",
        *(["CREATE UNIQUE INDEX a_not_distinct ON a (code) NULLS NOT DISTINCT"] if _major(sql) >= 15 else []),
        "CREATE TABLE p (id int, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "CREATE INDEX p_id ON p (id)",
        "CREATE INDEX p1_own ON p1 (id)",
        "CREATE INDEX plain ON a (email)",
    )
    found = probe(database, "duplicate_indexes")
    assert isinstance(found.reading, DuplicateIndexes)
    assert {one.name for one in found.reading.indexes} == {"public.plain", "public.p1_own"}
    sql(*found.answer.advice.sql)
    assert sql("SELECT count(*) FROM pg_index WHERE indisreplident")[0][0] == 1


def test_a_superfluous_constraint_is_named_in_its_remedy(database: PostgresSettings, sql: Run) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)", 'ALTER TABLE t ADD CONSTRAINT "Twice" UNIQUE (id)')
    found = probe(database, "duplicate_indexes")
    assert found.answer.advice.sql == ('ALTER TABLE public.t DROP CONSTRAINT "Twice";',)
    sql(*found.answer.advice.sql)
    assert probe(database, "duplicate_indexes").outcome is Outcome.OK


def test_a_partial_index_that_leaves_out_null_serves_a_nullable_key_and_each_partition_is_looked_at(
    database: PostgresSettings, sql: Run
) -> None:
    sql(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE served (pid int REFERENCES parent)",
        "CREATE INDEX served_pid ON served (pid) WHERE pid IS NOT NULL",
        "CREATE TABLE half_served (pid int REFERENCES parent, done bool)",
        "CREATE INDEX half_served_pid ON half_served (pid) WHERE pid IS NOT NULL AND done IS NOT NULL",
        "CREATE TABLE parts (pid int REFERENCES parent, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE part_one PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "CREATE TABLE many (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE many_one PARTITION OF many FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE many_two PARTITION OF many FOR VALUES FROM (10) TO (20)",
        "CREATE TABLE of_many (mid int REFERENCES many)",
    )
    found = probe(database, "foreign_keys_without_index")
    assert isinstance(found.reading, UnindexedKeys)
    assert sorted(key.table_name for key in found.reading.keys) == [
        "public.half_served",
        "public.of_many",
        "public.part_one",
    ]


def test_another_sessions_temporary_tables_are_nobodys_task(
    database: PostgresSettings, sql: Run, another_session: Open
) -> None:
    run_on(
        another_session(),
        "CREATE TEMP TABLE mine (id int PRIMARY KEY, other int)",
        "CREATE INDEX mine_other ON mine (other)",
        "CREATE INDEX mine_other_again ON mine (other)",
        "CREATE TEMP SEQUENCE steps MAXVALUE 10",
        "SELECT setval('steps', 10)",
        "INSERT INTO mine SELECT n, n FROM generate_series(1, 5000) n",
        "DELETE FROM mine",
        FLUSH,
    )
    for name in ("duplicate_indexes", "unused_indexes", "autovacuum", "analyze", "sequences", "table_bloat"):
        assert "pg_temp" not in str((probe(database, name).answer, probe(database, name).reading)), name


def _major(sql: Run) -> int:
    return int(sql("SELECT current_setting('server_version_num')::int / 10000")[0][0])
