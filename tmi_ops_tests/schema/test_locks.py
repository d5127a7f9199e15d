"""A migration beside other sessions that hold locks, and after one that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.schema import locking
from tmi_ops.schema.locking import MIGRATION_LOCK, Patience, observe_settled
from tmi_ops.schema.migration import migrate, plan_migration
from tmi_ops.schema.operations import BuildIndex
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.schema.conftest import A_THREAT_MODEL, Recorder, ask, run

pytestmark = pytest.mark.slow

HASTY = Patience(lock_timeout_s=0.1, attempts=3, harmless_lock_timeout_s=0.3, first_pause_s=0.05, longest_pause_s=0.1)


@contextmanager
def held(postgres: PostgresSettings, statement: str) -> Iterator[Callable[[], None]]:
    """A transaction of another session that has run `statement`; gives the function that ends it."""
    with connect(postgres, autocommit=False) as connection:
        connection.execute(statement.encode())
        yield connection.rollback


def test_a_lock_that_stays_is_given_up_with_the_name_of_its_holder_and_nothing_half_made(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, "ALTER TABLE threats DROP COLUMN cvss")
    with (
        held(migrated, "LOCK TABLE threats IN ACCESS SHARE MODE"),
        pytest.raises(DatabaseError, match=r"add column threats.cvss.*pid \d+ .*idle in transaction") as caught,
    ):
        migrate(migrated, report, patience=HASTY)
    assert "pg_terminate_backend" in str(caught.value)
    assert caught.value.transient
    assert [note.split(":")[0] for note in report.notes] == ["add column threats.cvss"] * 2
    assert "attempt 2 of 3" in report.notes[0]
    assert migrate(migrated, report).validation.ok


def test_a_lock_that_is_let_go_in_time_only_delays_the_migration(migrated: PostgresSettings, report: Recorder) -> None:
    run(
        migrated,
        "ALTER TABLE threats DROP COLUMN cvss",
        # A role's own limit on statements must not cut the waiting short.
        f"ALTER DATABASE \"{migrated.database}\" SET statement_timeout = '300ms'",
    )
    patience = Patience(lock_timeout_s=0.5, attempts=20, first_pause_s=0.05, longest_pause_s=0.1)
    with held(migrated, "LOCK TABLE threats IN ACCESS SHARE MODE") as release:
        releaser = threading.Thread(target=_release_once_it_waited, args=(report, release))
        releaser.start()
        result = migrate(migrated, report, patience=patience)
        releaser.join()
    assert result.validation.ok
    assert report.notes


def _release_once_it_waited(report: Recorder, release: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while not report.notes and time.monotonic() < deadline:
        time.sleep(0.02)
    release()


def test_between_a_migrations_attempts_at_a_lock_others_get_through(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, *A_THREAT_MODEL, "ALTER TABLE threats DROP COLUMN cvss")
    patience = Patience(lock_timeout_s=0.3, attempts=4, first_pause_s=0.3, longest_pause_s=0.3)
    read_after: set[int] = set()
    with held(migrated, "LOCK TABLE threats IN ACCESS SHARE MODE"), connect(migrated) as reader:
        worker = threading.Thread(target=_expect_failure, args=(migrated, report, patience))
        worker.start()
        while worker.is_alive():
            reader.execute("SELECT count(*) FROM threats")
            read_after.add(len(report.notes))
            time.sleep(0.01)
        worker.join()
    assert len(report.notes) == patience.attempts - 1
    assert {1, 2, 3} <= read_after  # while it waits in the queue, nobody passes it


def test_building_an_index_waits_for_older_transactions_and_holds_nobody_up(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, *A_THREAT_MODEL, "DROP INDEX idx_threats_threat_model_id")
    with held(migrated, "UPDATE threat_models SET name = name; LOCK TABLE threats IN ROW EXCLUSIVE MODE") as release:
        worker = threading.Thread(target=migrate, args=(migrated, report))
        worker.start()
        _until(lambda: ask(migrated, "SELECT FROM pg_stat_progress_create_index") != [])
        run(migrated, "SET lock_timeout = '500ms'; SELECT count(*) FROM threats; DELETE FROM threats")
        release()
        worker.join()
    assert plan_migration(migrated).empty


def test_an_index_build_that_cannot_get_through_says_what_it_left_and_the_next_run_replaces_it(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, "DROP INDEX idx_threats_threat_model_id")
    with (
        held(migrated, "LOCK TABLE threats IN ROW EXCLUSIVE MODE"),
        pytest.raises(DatabaseError, match=r"build index idx_threats_threat_model_id.*pid \d+") as caught,
    ):
        migrate(migrated, report, patience=HASTY)
    assert "the unfinished index idx_threats_threat_model_id remains" in caught.value.detail
    assert migrate(migrated, report).validation.at("WARN") == ()


def test_a_migration_killed_in_the_middle_of_an_index_build_is_cleared_up_by_the_next(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, "DROP INDEX idx_threats_threat_model_id")
    program = (
        "from tmi_ops.progress import SilentReport\n"
        "from tmi_ops.schema.migration import migrate\n"
        "from tmi_ops.settings import load_settings\n"
        "migrate(load_settings().postgres, SilentReport())\n"
    )
    with held(migrated, "LOCK TABLE threats IN ROW EXCLUSIVE MODE"):
        process = subprocess.Popen([sys.executable, "-c", program], env=_environment(migrated))
        _until(lambda: ask(migrated, "SELECT FROM pg_stat_progress_create_index") != [])
        process.send_signal(signal.SIGKILL)
        process.wait()
        run(migrated, "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        _until(lambda: ask(migrated, "SELECT FROM pg_stat_progress_create_index") == [])

    assert ask(migrated, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == [
        ("idx_threats_threat_model_id",)
    ]
    (operation,) = plan_migration(migrated).operations
    assert operation == BuildIndex("threats", "idx_threats_threat_model_id", leftover="idx_threats_threat_model_id")
    assert migrate(migrated, report).validation.at("WARN") == ()
    assert ask(migrated, "SELECT FROM pg_index WHERE NOT indisvalid") == []
    assert plan_migration(migrated).empty


def test_an_index_that_somebody_builds_right_now_is_neither_dropped_nor_built_again(migrated: PostgresSettings) -> None:
    run(migrated, "DROP INDEX idx_threats_threat_model_id")
    build = "CREATE INDEX CONCURRENTLY idx_threats_threat_model_id ON threats (threat_model_id)"
    with held(migrated, "LOCK TABLE threats IN ROW EXCLUSIVE MODE") as release:
        builder = threading.Thread(target=run, args=(migrated, build))
        builder.start()
        _until(lambda: ask(migrated, "SELECT FROM pg_index WHERE NOT indisvalid") != [])
        plan = plan_migration(migrated)
        assert plan.empty
        assert [one.name for one in plan.blocked] == ["idx_threats_threat_model_id"]
        release()
        builder.join()
    assert plan_migration(migrated).blocked == ()


def test_a_second_migration_names_the_first_waits_and_gives_up_when_told_to(
    migrated: PostgresSettings, report: Recorder
) -> None:
    with connect(migrated) as first:
        first.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        holder = f"pid {first.info.backend_pid}"
        with pytest.raises(DatabaseError, match=f"Another migration has been running.*{holder}"):
            migrate(migrated, report, patience=Patience(other_migration_s=0.2))
    assert holder in report.notes[0]


def _expect_failure(postgres: PostgresSettings, report: Recorder, patience: Patience) -> None:
    with pytest.raises(DatabaseError):
        migrate(postgres, report, patience=patience)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def _environment(postgres: PostgresSettings) -> dict[str, str]:
    libpq = libpq_environment(postgres)
    names = {
        "PGHOST": "POSTGRES_HOST",
        "PGPORT": "POSTGRES_PORT",
        "PGUSER": "POSTGRES_USER",
        "PGPASSWORD": "POSTGRES_PASSWORD",
        "PGDATABASE": "POSTGRES_DB",
        "PGSSLMODE": "POSTGRES_SSLMODE",
    }
    return {ours: libpq[theirs] for theirs, ours in names.items()}


def test_what_is_read_while_a_migration_runs_is_no_result_until_it_has_ended(
    migrated: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(migrated) as migration:
        migration.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        with pytest.raises(DatabaseError, match="A migration is changing the schema") as caught:
            observe_settled(migrated, lambda: "half", patience_s=0)
        assert caught.value.transient
        assert caught.value.code is Code.MIGRATION_RUNNING
        readings = iter(("half", "whole"))

        def end_it(_seconds: float) -> None:
            migration.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))

        monkeypatch.setattr(locking.time, "sleep", end_it)
        assert observe_settled(migrated, lambda: next(readings)) == "whole"
