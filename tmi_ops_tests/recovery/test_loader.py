"""The loader of a dump runs without secrets, and loads what it is given."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.errors import ProgramError
from tmi_ops.postgres import unprivileged
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import (
    SERVER_USER,
    ServerIdentity,
    loading_identity,
    server_identity,
    without_network,
)
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.loader import Loader, loader_into
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights")
SHELL = Path("/bin/bash")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def fetched(open_directory: Path) -> Path:
    """A dump as it is fetched: nobody but us may enter."""
    directory = open_directory / "fetched"
    directory.mkdir(mode=0o700)
    (directory / "database.dump").write_text("rows\n")
    (directory / "database.dump").chmod(0o600)
    return directory / "database.dump"


@as_root
def test_a_loader_reads_the_dump_and_can_change_nothing_and_has_no_secret_and_no_network(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    identity = loading_identity(SHELL, fetched.parent, needed=(), network=False)
    if identity != ServerIdentity(user=SERVER_USER, network=False):
        pytest.skip(f"here a loader is {identity}")
    script = (
        f'cat "{fetched}" >&2; (echo forged > "{fetched}") 2>/dev/null && echo WROTE >&2;'
        "cat /etc/shadow 2>/dev/null >&2; env >&2; id -un >&2; cat /proc/net/dev | wc -l >&2; exit 1"
    )
    with pytest.raises(ProgramError) as caught:
        Loader(identity, {"PGHOST": "/somewhere"}).run([SHELL, "-c", script])
    said = caught.value.output.splitlines()
    assert said[0] == "rows"
    assert "WROTE" not in said
    assert not [line for line in said if "secret" in line or line.startswith(("root:", "HOME="))]
    assert {"PGHOST=/somewhere", SERVER_USER} <= set(said)
    assert said[-1] == "3"  # two lines of heading and the loopback, which is down
    assert fetched.read_text() == "rows\n"


@as_root
def test_a_loader_in_a_scratch_directory_that_is_closed_is_the_account_of_the_scratch_server(
    fetched: Path, open_directory: Path
) -> None:
    """As the stack's processes make it, whose umask is 077: another account could not enter the socket's directory."""
    data = open_directory / "data"
    data.mkdir()
    open_directory.chmod(0o700)
    server = server_identity(SHELL, data, confined=True)
    if not server.opened:
        pytest.skip(f"here a server is {server}")
    loader = loading_identity(SHELL, fetched.parent, needed=(), network=True)
    assert (loader.user, loader.opened[-1]) == (SERVER_USER, fetched.parent)
    assert server.user == loader.user
    Loader(loader, {}).run([SHELL, "-c", f'[ "$(cat "{fetched}")" = rows ] && [ ! -e "{data}" ]'])


@as_root
def test_a_loader_that_needs_the_operator_s_key_runs_as_the_operator(fetched: Path, open_directory: Path) -> None:
    key = open_directory / "client.key"
    key.touch(mode=0o600)
    assert loading_identity(SHELL, fetched.parent, needed=[key], network=True) == ServerIdentity()
    key.chmod(0o644)
    assert loading_identity(SHELL, fetched.parent, needed=[key], network=True).user == SERVER_USER


def test_a_server_that_knows_us_by_our_account_is_loaded_by_it(programs: Programs, fetched: Path) -> None:
    address = PostgresSettings(host="/run/postgresql", user="dba", database="tmi")
    assert loader_into(address, programs, fetched).identity == ServerIdentity()


def test_without_network_is_asked_for_only_where_we_are_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert without_network(ServerIdentity(), SHELL) == ServerIdentity()


def test_without_network_a_kernel_that_forbids_it_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unprivileged, "_succeeds", lambda *_: False)
    assert without_network(ServerIdentity(user=SERVER_USER), SHELL).network


def test_what_a_loader_is_given_is_its_input_and_an_early_end_is_told_in_its_words() -> None:
    Loader(ServerIdentity(), {}).run([SHELL, "-c", '[ "$(cat)" = rows ]'], [b"ro", b"ws"])
    with pytest.raises(ProgramError, match="no such table"):
        Loader(ServerIdentity(), {}).run([SHELL, "-c", "echo 'ERROR: no such table' >&2; exit 3"], [b"x" * 1_000_000])


_LOAD = """
from tmi_ops.backup.dump import stream_program
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.recovery.loader import Loader
argv = ["/bin/sh", "-c", "sleep 1000 & echo $$ $! > {}; wait"]
{}
"""


@pytest.mark.parametrize("how", ["Loader(ServerIdentity(), {}).run(argv)", "list(stream_program(argv, {}))"])
def test_a_program_and_its_workers_end_with_us_however_we_end(tmp_path: Path, how: str) -> None:
    said = tmp_path / "pids"
    process = subprocess.Popen([sys.executable, "-c", _LOAD.replace("{}", str(said), 1).replace("{}\n", how + "\n")])
    _await(lambda: said.exists() and len(said.read_text().split()) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _await(lambda: not any(_lives(int(pid)) for pid in said.read_text().split()))


def _await(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def everybodys(open_directory: Path) -> Path:
    directory = open_directory / "everybody"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


@pytest.mark.slow
@as_root
def test_a_table_owner_s_check_that_becomes_superuser_of_the_proof_reaches_nobody_and_no_secret(
    settings: Settings,
    store: ObjectStore,
    database: PostgresSettings,
    everybodys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if without_network(ServerIdentity(user=SERVER_USER), SHELL).network:
        pytest.skip("the kernel lets us take no network away here")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of ours")
    out = everybodys / secrets.token_hex(4)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attack = (
            f"id -u > {out}; env >> {out}; "
            f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{listener.getsockname()[1]} && echo REACHED >> {out}'"
        )
        with connect(database) as connection:
            connection.execute(
                "CREATE FUNCTION fair(a int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
                "CREATE TABLE bitten (a int CHECK (fair(a))); INSERT INTO bitten VALUES (1);"
                "CREATE OR REPLACE FUNCTION fair(a int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
                f" EXECUTE $q$COPY (SELECT 1) TO PROGRAM $p${attack}$p$ $q$;"
                " RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;".encode()
            )
        manifest = back_up_logical(settings, store, "custom", SilentReport())
        verify_backup(settings, store, manifest, SilentReport())
    said = out.read_text().splitlines()
    assert said[0] != "0"
    assert "REACHED" not in said
    assert "secret of ours" not in out.read_text()
