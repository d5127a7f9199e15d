"""Whatever a tired person gets wrong: a clear error with the next step, and nothing half-made in the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import KINDS, list_backups
from tmi_ops.store.objects import open_store
from tmi_ops_tests.commands import command
from tmi_ops_tests.store.conftest import make_age_keys
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow

SECRET = "hunter2-is-no-password"

WRONG = {
    "a wrong password": ({"POSTGRES_PASSWORD": SECRET}, "POSTGRES_PASSWORD"),
    "a role that is not there": ({"POSTGRES_USER": "nobody_here"}, "nobody_here"),
    "a database that is not there": ({"POSTGRES_DB": "never_made"}, "never_made"),
    "a host without a server": ({"POSTGRES_PORT": "9"}, "POSTGRES_PORT"),
    "a host that does not exist": ({"POSTGRES_HOST": "no-such-host.invalid"}, "no-such-host.invalid"),
    "a port that is no number": ({"POSTGRES_PORT": "fifty"}, "POSTGRES_PORT"),
    "an unknown environment": ({"TMI_ENV": "prodution"}, "unknown environment"),
    "a bucket that is missing": ({"TMI_OPS_S3_BUCKET": "never-made"}, "never-made"),
    "an endpoint where nothing answers": ({"TMI_OPS_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    "an endpoint that is no address": ({"TMI_OPS_S3_ENDPOINT_URL": "localhost:8333"}, "TMI_OPS_S3_ENDPOINT_URL"),
    "a wrong secret key": ({"TMI_OPS_S3_SECRET_ACCESS_KEY": SECRET}, "TMI_OPS_S3_SECRET_ACCESS_KEY"),
    "recipients that are no keys": ({"TMI_OPS_AGE_RECIPIENTS": "age1nonsense"}, "TMI_OPS_AGE_RECIPIENTS"),
}


def run(settings: Settings, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    settings.home.parent.mkdir(exist_ok=True, parents=True)
    return command(*words, env=variables_of(settings) | changed, cwd=settings.home.parent)


def assert_explained(done: subprocess.CompletedProcess[str], hint: str) -> None:
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr
    assert "HINT:" in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout


def nothing_was_made(settings: Settings) -> bool:
    store = open_store(settings.store, settings.environment)
    return list_backups(store) == [] and not any(list(store.list_objects(f"{kind}/")) for kind in KINDS)


@pytest.mark.parametrize("what", WRONG)
def test_a_backup_with_wrong_settings_says_what_to_correct_and_leaves_nothing(settings: Settings, what: str) -> None:
    changed, hint = WRONG[what]
    assert_explained(run(settings, "backup", "logical", **changed), hint)
    assert nothing_was_made(settings)


def test_a_pg_dump_older_than_the_server_is_refused_before_anything_is_read(settings: Settings, tmp_path: Path) -> None:
    bindir = tmp_path / "old"
    bindir.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        (bindir / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 12.3'\n")
        (bindir / name).chmod(0o755)
    done = run(settings, "backup", "logical", TMI_OPS_PG_BINDIR=str(bindir))
    assert_explained(done, "12.3")
    assert "TMI_OPS_PG_BINDIR" in done.stderr
    assert nothing_was_made(settings)


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_a_backup_that_does_not_exist_is_named(settings: Settings, command: str) -> None:
    words = ["verify", "20200101T000000Z-logical-0000"]
    if command == "restore":
        words = ["restore", "--backup", "20200101T000000Z-logical-0000", "--into", "tmi_copy"]
    assert_explained(run(settings, *words), "20200101T000000Z-logical-0000")


def test_ctrl_c_in_the_middle_of_a_backup_ends_with_130_and_leaves_nothing(settings: Settings) -> None:
    with connect(settings.postgres) as connection:
        connection.execute(
            "CREATE TABLE much AS SELECT i, md5(random()::text) || md5(random()::text) AS noise"
            " FROM generate_series(1, 1500000) i"
        )
    settings.home.parent.mkdir(exist_ok=True, parents=True)
    backup = subprocess.Popen(
        [sys.executable, "-m", "tmi_ops.cli.main", "backup", "logical"],
        cwd=settings.home.parent,
        env=variables_of(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    await_dump(settings)
    os.kill(backup.pid, signal.SIGINT)
    _, said = backup.communicate(timeout=60)
    assert backup.returncode == 130, said
    assert "Traceback" not in said
    assert nothing_was_made(settings)


def await_dump(settings: Settings) -> None:
    deadline = time.monotonic() + 60
    with connect(settings.postgres) as connection:
        while time.monotonic() < deadline:
            copying = "SELECT FROM pg_stat_activity WHERE query LIKE 'COPY public.much%' AND pid <> pg_backend_pid()"
            if connection.execute(copying.encode()).fetchone() is not None:
                return
            time.sleep(0.05)
    raise AssertionError("no dump began")


def test_an_encrypted_backup_is_proven_with_the_private_key_and_refused_without(
    settings: Settings, tmp_path: Path
) -> None:
    keys = make_age_keys(tmp_path / "key.txt")
    encrypted = {"TMI_OPS_AGE_RECIPIENTS": keys.recipient}
    assert run(settings, "migrate", **encrypted).returncode == 0
    assert run(settings, "backup", "logical", **encrypted).returncode == 0
    assert_explained(run(settings, "verify", "latest", **encrypted), "TMI_OPS_AGE_IDENTITY_FILE")
    verified = run(settings, "verify", "latest", **encrypted, TMI_OPS_AGE_IDENTITY_FILE=str(keys.identity_file))
    assert verified.returncode == 0, verified.stderr
    (entry,) = list_backups(open_store(settings.store, settings.environment))
    assert entry.manifest.encrypted
    assert entry.verification is not None
    assert entry.verification.outcome == "proven"
