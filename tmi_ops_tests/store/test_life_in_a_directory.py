"""A cluster's whole life with a directory as its store, by the commands that a person types."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import make_place, open_store
from tmi_ops_tests.commands import command
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.physical import physical_cluster
from tmi_ops_tests.recovery.point_in_time.conftest import make_ledger, write
from tmi_ops_tests.recovery.point_in_time.restoring import rows, started
from tmi_ops_tests.variables import postgres_variables

pytestmark = pytest.mark.slow
HALF_MADE = "20260101T020000Z-logical-0000"
MONTH_AGO = time.time() - 30 * 86400


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    let_everybody_enter(tmp_path)
    yield tmp_path


@pytest.fixture
def store(directory: Path) -> StoreSettings:
    settings = StoreSettings(directory=directory / "backups")
    make_place(settings)
    return settings


def test_backups_wal_verification_recovery_and_pruning_work_in_a_directory(
    programs: Programs, directory: Path, store: StoreSettings
) -> None:
    with physical_cluster(programs, directory / "server") as cluster:
        env = {
            "PATH": os.environ["PATH"],
            "TMI_ENV": "development",
            "TMI_OPS_HOME": str(directory / "home"),
            "TMI_OPS_STORE_DIRECTORY": str(store.directory),
            **postgres_variables(cluster.address),
        }

        def run(*words: str) -> str:
            done = command(*words, env=env, cwd=directory)
            assert "Traceback" not in done.stderr
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        make_ledger(cluster.address)
        run("backup", "base", "--quiet")
        moment = write(cluster.address)
        write(cluster.address)
        run("wal", "stream", "--catch-up", "--quiet")
        run("backup", "logical", "--quiet")
        run("verify", "latest", "--quiet")
        backups = json.loads(run("backups", "--json"))
        assert len(backups) == 2
        assert_links(json.loads(run("doctor", "--json")))
        run("restore", "--to-time", moment.time.isoformat(), "--into", str(directory / "recovered"), "--quiet")
        with started(directory / "recovered", cluster.address) as recovered:
            assert rows(recovered.address) == moment.rows
        leave_something_to_prune(store)
        assert_pruned(json.loads(run("prune", "--yes", "--json")), store)
        assert json.loads(run("backups", "--json")) == backups


def assert_links(said: dict[str, Any]) -> None:
    """What only a server has is neither broken nor well."""
    outcomes = {link["name"]: link["outcome"] for link in said["checks"] if link["area"] == "backup store"}
    applicable = {"store-settings", "store-directory", "store-copies", "keys"}
    assert {name: outcomes[name] for name in applicable} == dict.fromkeys(applicable, "ok")
    assert {outcomes[name] for name in outcomes.keys() - applicable} == {"not applicable"}


def leave_something_to_prune(settings: StoreSettings) -> None:
    """A backup that was never finished, and an upload that a crash left, both a month old."""
    store = open_store(settings, "development")
    store.put_bytes(f"logical/{HALF_MADE}/database.dump", b"half")
    left = store.backend.upload(f"logical/{HALF_MADE}/globals.sql")
    left.write(b"half")
    assert settings.directory is not None
    for file in settings.directory.rglob(f"**/{HALF_MADE}/**/*"):
        if file.is_file():
            os.utime(file, (MONTH_AGO, MONTH_AGO))


def assert_pruned(said: dict[str, Any], settings: StoreSettings) -> None:
    assert (said["half_made"], said["unfinished_uploads"]) == ([HALF_MADE], 1)
    assert said["rights"]["store_keys"] == []
    assert settings.directory is not None
    assert list(settings.directory.rglob(HALF_MADE)) == []
