"""Connections, queries, locks and transactions, each in the bad state it warns of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.probes.locks import Blocked
from tmi_ops.health.probes.sessions import Connections, Sessions
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.health.conftest import FLUSH, counters, eventually, in_background, probe, run_on

Open = Callable[..., psycopg.Connection[Any]]
Run = Callable[..., list[tuple[Any, ...]]]


def test_many_connections_are_counted_by_state_and_the_greediest_is_named(
    database: PostgresSettings, another_session: Open
) -> None:
    for _ in range(20):
        another_session(application_name="greedy")
    found = probe(database, "connections", "50,90")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, Connections)
    assert found.reading.by_state()["idle"] >= 20
    assert "greedy holds 20 (idle)" in found.answer.advice.text
    assert "ALTER SYSTEM SET max_connections = 80;" in found.answer.advice.sql


def test_few_connections_are_well(database: PostgresSettings) -> None:
    found = probe(database, "connections")
    assert found.outcome is Outcome.OK
    assert "of 37 usable connections" in found.answer.seen


def test_a_query_that_runs_long_is_named_with_how_to_cancel_it_and_without_its_literals(
    database: PostgresSettings, another_session: Open
) -> None:
    slow = another_session()
    with in_background(slow, "SELECT pg_sleep(60), 'hunter2'"):
        found = eventually(lambda: running(probe(database, "long_running_queries", "0,")))
        assert found.outcome is Outcome.WARNING
        assert found.answer.advice.sql[0] == f"SELECT pg_cancel_backend({slow.info.backend_pid});"
        row = found.reading.rows()[0]
        assert row["query"] == "SELECT pg_sleep(?), ?"
        assert "hunter2" not in str(found)


def running(found: Any) -> Any:
    return found if found.reading.judged else None


def test_our_own_backups_are_shown_but_not_judged(database: PostgresSettings, another_session: Open) -> None:
    dump = another_session(application_name="tmi_ops")
    with in_background(dump, "SELECT pg_sleep(60)"):
        pid = dump.info.backend_pid
        found = eventually(
            lambda: shown if pid in pids(shown := probe(database, "long_running_queries", "0,0")) else None
        )
        assert pid not in [session.pid for session in found.reading.judged]


def pids(found: Any) -> list[int]:
    return [session.pid for session in found.reading.sessions]


def test_a_transaction_that_sits_idle_is_named_with_how_to_end_it(
    database: PostgresSettings, another_session: Open
) -> None:
    forgotten = another_session()
    run_on(forgotten, "BEGIN", "SELECT 1")
    found = probe(database, "idle_in_transaction", "0,3600")
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, Sessions)
    assert found.reading.judged[0].pid == forgotten.info.backend_pid
    assert f"SELECT pg_terminate_backend({forgotten.info.backend_pid});" in found.answer.advice.sql
    run_on(forgotten, "ROLLBACK")
    assert probe(database, "idle_in_transaction", "0,3600").answer.seen == "no session is idle in a transaction"


def test_who_blocks_whom_is_followed_to_the_one_that_waits_for_nobody(
    database: PostgresSettings, another_session: Open, sql: Run
) -> None:
    sql("CREATE TABLE accounts (id int)")
    blocker, second, third = another_session(application_name="nightly"), another_session(), another_session()
    run_on(blocker, "BEGIN", "LOCK accounts IN ACCESS EXCLUSIVE MODE")
    with in_background(second, "ALTER TABLE accounts ADD COLUMN a int"):
        eventually(lambda: len(waiters(database)) == 1)
        with in_background(third, "SELECT * FROM accounts"):
            eventually(lambda: len(waiters(database)) == 2)
            found = probe(database, "blocked_sessions", "0,3600")
    assert found.outcome is Outcome.WARNING
    reading = found.reading
    assert isinstance(reading, Blocked)
    assert reading.roots() == {blocker.info.backend_pid: 2}
    assert "nightly" in found.answer.seen
    assert found.answer.advice.sql[0] == f"SELECT pg_cancel_backend({blocker.info.backend_pid});"
    assert {row["for"] for row in reading.rows()} == {
        "AccessExclusiveLock on public.accounts",
        "AccessShareLock on public.accounts",
    }


def waiters(database: PostgresSettings) -> tuple[Any, ...]:
    reading = probe(database, "blocked_sessions").reading
    assert isinstance(reading, Blocked)
    return reading.waiters


def test_a_prepared_transaction_nobody_finished_is_named_with_both_ways_to_finish_it(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE TABLE orders (id int)", "BEGIN", "INSERT INTO orders VALUES (1)", "PREPARE TRANSACTION 'it''s 7'")
    found = probe(database, "prepared_transactions", "0,3600")
    assert found.outcome is Outcome.WARNING
    assert found.answer.advice.sql == ("ROLLBACK PREPARED 'it''s 7';", "COMMIT PREPARED 'it''s 7';")
    sql(found.answer.advice.sql[0])
    assert probe(database, "prepared_transactions", "0,3600").outcome is Outcome.OK


def test_rollbacks_and_the_rate_are_measured_between_two_readings(database: PostgresSettings, sql: Run) -> None:
    sql("SELECT 1")
    before = counters(database)
    for _ in range(120):
        sql("BEGIN", "ROLLBACK")
    sql(FLUSH)
    found = probe(database, "transactions", last=before)
    assert found.outcome is Outcome.CRITICAL
    assert found.answer.advice.sql[0].startswith("ALTER SYSTEM SET log_min_error_statement")
    assert found.reading is not None
    assert found.reading.numbers()["transactions (1/s)"] > 0


def test_a_deadlock_since_the_last_reading_is_a_warning(
    database: PostgresSettings, another_session: Open, sql: Run
) -> None:
    sql("CREATE TABLE pair (id int PRIMARY KEY)", "INSERT INTO pair VALUES (1), (2)")
    before = counters(database)
    one, other = another_session(), another_session()
    for session, row in ((one, 1), (other, 2)):
        run_on(session, "SET deadlock_timeout = '10ms'", "BEGIN", f"UPDATE pair SET id = id WHERE id = {row}")
    with in_background(one, "UPDATE pair SET id = id WHERE id = 2"):
        eventually(lambda: waiters(database))
        with pytest.raises(psycopg.errors.DeadlockDetected):
            run_on(other, "UPDATE pair SET id = id WHERE id = 1")
        run_on(other, "ROLLBACK")
    other.close()
    found = eventually(lambda: warned(probe(database, "transactions", "100,100", last=before)))
    assert "1 deadlock" in found.answer.seen
    assert "different orders" in found.answer.advice.text


def warned(found: Any) -> Any:
    return found if found.outcome is Outcome.WARNING else None


def test_reads_that_miss_the_cache_are_seen(database: PostgresSettings, sql: Run) -> None:
    # Larger than shared_buffers (64 MB), read once through: the cache cannot hold it.
    sql(
        "CREATE TABLE large (x text)",
        "ALTER TABLE large ALTER x SET STORAGE PLAIN",
        "INSERT INTO large SELECT repeat('x', 7000) FROM generate_series(1, 12000)",
    )
    before = counters(database)
    sql("SELECT count(*) FROM large", FLUSH)
    found = probe(database, "cache_hit_ratio", "99,10", last=before)
    assert found.outcome is Outcome.WARNING
    assert "now 64MB" in found.answer.advice.text


def test_a_slow_query_is_found_once_the_extension_is_there_and_before_that_the_remedy_is(
    database: PostgresSettings, sql: Run
) -> None:
    without = probe(database, "slow_queries")
    assert (without.outcome, without.cause) == (Outcome.UNKNOWN, Cause.EXTENSION)
    sql(*without.answer.advice.sql)
    for _ in range(10):
        sql("SELECT pg_sleep(0.012), 'slowest'")
    found = probe(database, "slow_queries", "10,5000")
    assert found.outcome is Outcome.WARNING
    assert "pg_sleep($1)" in found.answer.advice.text
    assert found.reading is not None
    assert found.reading.rows()[0]["calls"] == 10


def test_without_the_library_the_remedy_keeps_those_already_loaded() -> None:
    from tmi_ops.health.probes.statements import not_loaded

    assert not_loaded(["auto_explain"]).remedy[0] == (
        "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', 'pg_stat_statements';"
    )
