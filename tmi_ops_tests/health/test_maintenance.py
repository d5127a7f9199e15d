"""Maintenance on real tables, indexes and sessions in need of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, OpsError
from tmi_ops.health.examine import Examination, examine
from tmi_ops.health.maintenance.execution import Taken, execute, within_rights
from tmi_ops.health.maintenance.limits import Limits, parse_window
from tmi_ops.health.maintenance.planning import PROBES, plan_maintenance
from tmi_ops.health.maintenance.steps import Analyze, DropLeftover, EndSession, Plan, Rebuild, Vacuum
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.schema.locking import MIGRATION_LOCK
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops_tests.health.conftest import FLUSH, eventually, in_background, probe, role, run_on
from tmi_ops_tests.health.test_indexes import leave_ccnew

Open = Callable[..., psycopg.Connection[Any]]
Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def plan_for(at_home: Settings) -> Callable[..., Plan]:
    """Examine the test's database and plan; thresholds as options."""

    def plan(limits: Limits | None = None, *thresholds: str) -> Plan:
        how = Examination(only=PROBES, thresholds=thresholds)
        return plan_maintenance(examine(at_home, how, SilentReport()).results, limits or Limits())

    return plan


def do(postgres: PostgresSettings, *steps: Any, limits: Limits | None = None) -> list[Taken]:
    return list(execute(postgres, Plan(steps), limits or Limits(), SilentReport()))


@pytest.mark.slow
def test_maintenance_does_what_health_asks_for_and_then_there_is_nothing_left_to_do(
    database: PostgresSettings, sql: Run, plan_for: Callable[..., Plan]
) -> None:
    sql(
        "CREATE TABLE dead AS SELECT generate_series(1, 1000) AS id",
        FLUSH,
        "ANALYZE dead",
        "UPDATE dead SET id = id",
        "CREATE TABLE changed AS SELECT generate_series(1, 1000) AS id",
        "CREATE TABLE fat (id int PRIMARY KEY) WITH (autovacuum_enabled = off)",
        "INSERT INTO fat SELECT generate_series(1, 500000)",
        "DELETE FROM fat WHERE id % 10 <> 0",
        FLUSH,
        "VACUUM (ANALYZE) fat",
        FLUSH,
    )
    plan = plan_for()
    assert [step.sql for step in plan.steps] == [
        "VACUUM (ANALYZE) public.dead;",
        "ANALYZE public.changed;",
        "REINDEX INDEX CONCURRENTLY public.fat_pkey;",
    ]
    taken = execute(database, plan, Limits(), SilentReport())
    assert [one.outcome for one in taken] == ["done"] * 3
    assert eventually(lambda: plan_for().empty)


def test_a_leftover_of_a_broken_off_rebuild_is_dropped_and_its_original_stays(
    database: PostgresSettings, sql: Run, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    leave_ccnew(database, sql, another_session)
    plan = plan_for(Limits(kinds=frozenset({"reindex"})))
    assert isinstance(plan.steps[0], DropLeftover)
    assert [one.outcome for one in execute(database, plan, Limits(), SilentReport())] == ["done"]
    assert sql("SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'carts'::regclass") == [
        ("carts_id", True)
    ]


def test_a_leftover_whose_original_is_gone_by_now_is_not_dropped(
    database: PostgresSettings, sql: Run, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    leave_ccnew(database, sql, another_session)
    plan = plan_for()
    sql("DROP INDEX carts_id")
    taken = execute(database, plan, Limits(), SilentReport())
    dropped = next(one for one in taken if isinstance(one.step, DropLeftover))
    assert (dropped.outcome, "no longer is" in dropped.note) == ("left out", True)
    assert sql("SELECT to_regclass('carts_id_ccnew') IS NOT NULL") == [(True,)]


def test_a_rebuild_that_rows_stand_in_the_way_of_fails_alone_and_leaves_nothing(
    database: PostgresSettings, sql: Run
) -> None:
    sql("CREATE TABLE users (email text)", "INSERT INTO users VALUES ('a'), ('a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql("CREATE UNIQUE INDEX CONCURRENTLY users_email ON users (email)")
    rebuild = Rebuild("public.users_email", "public.users", "invalid")
    taken = do(database, rebuild, Analyze("public.users", "old"))
    assert [one.outcome for one in taken] == ["failed", "done"]
    assert "could not create unique index" in taken[0].note
    assert "The unfinished index was dropped" in taken[0].note
    assert sql("SELECT count(*) FROM pg_class WHERE relname ~ '_cc(new|old)'") == [(0,)]


@pytest.mark.slow
def test_a_rebuild_that_waits_too_long_for_others_is_broken_off_and_the_next_run_clears_up(
    database: PostgresSettings, sql: Run, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    sql("CREATE TABLE t (id int)", "CREATE INDEX t_id ON t (id)")
    holder = another_session()
    run_on(holder, "BEGIN", "INSERT INTO t VALUES (1)")
    rebuild = Rebuild("public.t_id", "public.t", "bloat")
    impatient = Limits(concurrent_wait_s=0.2, lock_timeout_s=0.1)
    short = Limits(max_duration_s=0.5, lock_timeout_s=0.1)
    waited = do(database, rebuild, limits=impatient)[0]
    assert "its lock was not granted in time" in waited.note
    assert "t_id_ccnew remains: no query uses it, and the next run drops it" in waited.note
    by_time = do(database, rebuild, Analyze("public.t", "old"), limits=short)
    assert ["cancelled at" in by_time[0].note, "time limit" in by_time[1].note] == [True, True]
    run_on(holder, "ROLLBACK")
    taken = execute(database, plan_for(), Limits(), SilentReport())
    assert [(type(one.step), one.outcome) for one in taken] == [(DropLeftover, "done")] * 2
    assert sql("SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 't'::regclass") == [
        ("t_id", True)
    ]


def test_a_table_somebody_holds_is_left_out_after_the_lock_timeout(
    database: PostgresSettings, sql: Run, another_session: Open
) -> None:
    sql("CREATE TABLE held (id int)", "CREATE TABLE open (id int)")
    run_on(another_session(), "BEGIN", "LOCK held IN SHARE UPDATE EXCLUSIVE MODE")
    taken = do(
        database, Vacuum("public.held", "dead"), Vacuum("public.open", "dead"), limits=Limits(lock_timeout_s=0.1)
    )
    assert [one.outcome for one in taken] == ["left out", "done"]


def test_a_role_that_does_not_own_the_table_is_told_instead_of_passed_over_in_silence(
    database: PostgresSettings, sql: Run, programs: Programs, another_session: Open
) -> None:
    sql("CREATE TABLE theirs (id int)")
    [(theirs,)] = run_on(another_session(), "SELECT pg_backend_pid()")
    with role(database) as stranger:
        ended = EndSession(theirs, datetime.now(UTC), None, idle=True, who="a session", reason="idle")
        promised = within_rights(stranger, Plan((ended, Vacuum("public.theirs", "dead"))))
        assert promised.empty
        assert [one.reason for one in promised.left_out] == [
            f"idle, but {stranger.user} is not a member of pg_signal_backend",
            f"dead, but {stranger.user} does not own public.theirs",
        ]
        taken = do(stranger, Vacuum("public.theirs", "dead"), Analyze("public.theirs", "old"))
        assert [one.outcome for one in taken] == ["left out"] * 2
        assert "does not own public.theirs" in taken[0].note
        has_maintain = programs.major >= 17
        sql(
            f"GRANT MAINTAIN ON theirs TO {stranger.user}"
            if has_maintain
            else f"ALTER TABLE theirs OWNER TO {stranger.user}"
        )
        assert [one.outcome for one in do(stranger, Vacuum("public.theirs", "dead"))] == ["done"]
        sql(f"GRANT pg_signal_backend TO {stranger.user}")
        assert len(within_rights(stranger, Plan((ended, Vacuum("public.theirs", "dead")))).steps) == 2


def test_while_a_migration_runs_indexes_are_let_alone(
    database: PostgresSettings, sql: Run, another_session: Open
) -> None:
    sql("CREATE TABLE t (id int)", "CREATE INDEX t_id ON t (id)")
    run_on(another_session(), f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
    assert do(database, Rebuild("public.t_id", "public.t", "bloat"))[0].note == "a migration is running"


def test_two_at_once_do_not_do_the_same_work(database: PostgresSettings, sql: Run, another_session: Open) -> None:
    sql("CREATE TABLE t (id int)", "CREATE INDEX t_id ON t (id)")
    holder = another_session()
    run_on(holder, "BEGIN", "INSERT INTO t VALUES (1)")
    first: list[list[Taken]] = []
    rebuild = Rebuild("public.t_id", "public.t", "bloat")
    running = threading.Thread(target=lambda: first.append(do(database, rebuild)))
    running.start()
    eventually(lambda: sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
    with pytest.raises(DatabaseError) as refused:
        do(database, rebuild)
    assert refused.value.code is Code.MAINTENANCE_RUNNING
    run_on(holder, "ROLLBACK")
    running.join()
    assert [one.outcome for one in first[0]] == ["done"]


def test_outside_its_window_nothing_begins(database: PostgresSettings) -> None:
    begins = datetime.now(UTC) + timedelta(hours=2)
    window = parse_window(f"{begins:%H:%M}-{begins + timedelta(hours=1):%H:%M}", "UTC")
    with pytest.raises(OpsError) as refused:
        do(database, Analyze("public.t", "old"), limits=Limits(window=window))
    assert refused.value.code is Code.WINDOW_CLOSED


@pytest.fixture
def app(database: PostgresSettings) -> Any:
    with role(database, 'GRANT ALL ON DATABASE "{database}" TO {name}') as application:
        yield {
            "user": application.user,
            "password": application.password.get_secret_value() if application.password else "",
        }


def test_a_transaction_that_sits_idle_is_ended_and_nobody_elses(
    app: dict[str, str], database: PostgresSettings, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    forgotten, fresh, superuser, ours = (
        another_session(**app),
        another_session(**app),
        another_session(),
        another_session(**app, application_name="tmi_ops"),
    )
    for one in (forgotten, superuser, ours):
        run_on(one, "BEGIN")
    limits = Limits(terminate=True, idle_s=0, kinds=frozenset({"connections"}))
    plan = plan_for(limits)
    assert [step.subject for step in plan.steps] == [
        f"pid {forgotten.info.backend_pid} ({app['user']}, shop, 127.0.0.1)"
    ]
    taken = execute(database, plan, limits, SilentReport())
    assert [one.outcome for one in taken] == ["done"]
    with pytest.raises(psycopg.OperationalError):
        run_on(forgotten, "SELECT 1")
    for one in (fresh, superuser, ours):
        run_on(one, "SELECT 1")


def test_a_session_that_moved_on_since_the_plan_is_let_alone(
    app: dict[str, str], database: PostgresSettings, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    worker = another_session(**app)
    run_on(worker, "BEGIN")
    limits = Limits(terminate=True, idle_s=0, kinds=frozenset({"connections"}))
    plan = plan_for(limits)
    run_on(worker, "COMMIT", "BEGIN")
    taken = execute(database, plan, limits, SilentReport())
    assert [(one.outcome, one.note) for one in taken] == [("left out", "the session had already moved on")]
    run_on(worker, "SELECT 1")


def test_a_long_query_is_cancelled_and_its_session_stays(
    app: dict[str, str], database: PostgresSettings, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    worker = another_session(**app)
    cancelled: list[BaseException] = []

    def work() -> None:
        try:
            run_on(worker, "SELECT pg_sleep(60)")
        except psycopg.errors.QueryCanceled as error:
            cancelled.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    limits = Limits(terminate=True, running_s=0, kinds=frozenset({"connections"}))
    plan = eventually(lambda: one if not (one := plan_for(limits)).empty else None)
    taken = execute(database, plan, limits, SilentReport())
    thread.join()
    assert [(one.outcome, one.note) for one in taken] == [("done", "cancelled its query")]
    assert cancelled
    run_on(worker, "SELECT 1")


def test_a_query_that_does_not_heed_the_cancel_loses_its_session(
    app: dict[str, str], database: PostgresSettings, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    stubborn = another_session(**app)
    deaf = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$"
    with in_background(stubborn, deaf):
        limits = Limits(terminate=True, running_s=0, grace_s=0.2, kinds=frozenset({"connections"}))
        plan = eventually(lambda: one if not (one := plan_for(limits)).empty else None)
        taken = execute(database, plan, replace(limits, grace_s=0.5), SilentReport())
    assert taken[0].outcome == "done"
    assert "ended the session" in taken[0].note
    assert probe(database, "long_running_queries").answer.seen == "no query is running"


def test_a_role_that_may_not_end_sessions_is_told_the_right(
    app: dict[str, str], database: PostgresSettings, another_session: Open, plan_for: Callable[..., Plan]
) -> None:
    run_on(another_session(**app), "BEGIN")
    limits = Limits(terminate=True, idle_s=0, kinds=frozenset({"connections"}))
    plan = plan_for(limits)
    with role(database, "GRANT pg_monitor TO {name}") as stranger:
        taken = execute(stranger, plan, limits, SilentReport())
    assert taken[0].outcome == "failed"
    assert "pg_signal_backend" in taken[0].note


def test_a_standby_or_a_lost_connection_is_an_error(database: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match="could not be reached"):
        do(database.model_copy(update={"port": 1}), Analyze("public.t", "old"))
    with connect(database) as connection:
        assert run_on(connection, "SELECT 1") == [(1,)]
