"""`tmi-ops restore` of a cluster, on the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from tmi_ops.cli.moments import lsn, moment
from tmi_ops.cli.point_in_time import tablespace_mapping
from tmi_ops_tests.commands import command
from tmi_ops_tests.recovery.point_in_time.conftest import RESTORE_POINT, Past
from tmi_ops_tests.recovery.point_in_time.restoring import rows, started
from tmi_ops_tests.variables import variables_of


@pytest.fixture
def run(past: Past, tmp_path: Path) -> Iterator[object]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**variables_of(past.settings), "COLUMNS": "200", "TZ": "UTC"}
        return command("restore", *words, env=env, cwd=tmp_path)

    return call


@pytest.mark.slow
def test_it_says_what_it_will_do_does_it_and_says_how_to_go_on(past: Past, directory: Path, run) -> None:
    done = run("--to-time", past.early.time.isoformat(), "--into", str(directory), "--quiet")
    assert done.returncode == 0, done.stderr
    words = done.stdout
    assert f"Restore the whole cluster {past.system_identifier} (PostgreSQL {past.full.server_version}" in words
    assert f"base backup {past.full.backup_id}" in words
    assert "Does not touch any running server or anything in the store." in words
    assert f"Restored {directory} to LSN 0/" in words
    assert "The target was reached: the server stopped before commit of transaction" in words
    assert f"--pgdata={directory} start" in words
    assert "Check listen_addresses and port" in words
    assert "never blacklist:token:*" in words
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.early.rows


@pytest.mark.slow
def test_a_plan_is_shown_and_nothing_is_made(past: Past, directory: Path, run) -> None:
    done = run("--to-name", RESTORE_POINT, "--into", str(directory), "--plan", "--pause", "--quiet")
    assert done.returncode == 0, done.stderr
    assert f"to the restore point {RESTORE_POINT} (LSN 0/" in done.stdout
    assert past.incremental.backup_id in done.stdout
    assert ("1 incremental on it, up to" in done.stdout) is past.takes_increments
    assert "stay there, read-only" in done.stdout
    assert not directory.exists()


def test_a_directory_that_is_not_empty_is_refused_with_a_next_step(directory: Path, run) -> None:
    directory.mkdir()
    (directory / "precious").touch()
    done = run("--latest", "--into", str(directory), "--quiet")
    assert done.returncode == 2
    assert f"[TMI-3060] {directory} is not empty." in done.stderr
    assert "HINT: Give another directory with --into" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--latest", "--to-name", "x"], "Give only one of --to-time, --to-lsn, --to-name and --latest"),
        (["--pause"], "A cluster needs a target"),
        ([], "Nothing to restore was named"),
        (["--latest", "--replace"], "--replace is for databases"),
        (["--latest", "--exclusive"], "--exclusive cannot be used with --latest"),
        (["--to-lsn", "5"], "'5' is not an LSN"),
        (["--to-time", "noonish"], "is not a time such as"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, run) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_times_are_read_as_people_write_them() -> None:
    assert moment("2026-01-24 03:44:13+00") == datetime(2026, 1, 24, 3, 44, 13, tzinfo=UTC)
    assert moment("2026-01-24T03:44:13.5+02:00") == datetime(2026, 1, 24, 1, 44, 13, 500_000, tzinfo=UTC)
    assert moment("2026-01-24 03:44") == datetime(2026, 1, 24, 3, 44).astimezone()
    assert abs(datetime.now(UTC) - moment("1h 30m ago") - timedelta(minutes=90)) < timedelta(seconds=5)
    with pytest.raises(click.BadParameter, match="is in the future"):
        moment((datetime.now(UTC) + timedelta(hours=1)).isoformat())


def test_places_and_lsns_are_read_as_postgresql_writes_them() -> None:
    assert lsn("16/B374D848") == 0x16B374D848
    assert tablespace_mapping("/a=/b") == ("/a", Path("/b"))
    assert tablespace_mapping(r"/a\=1=/b") == ("/a=1", Path("/b"))
    with pytest.raises(click.BadParameter, match="two absolute paths"):
        tablespace_mapping("a=/b")
