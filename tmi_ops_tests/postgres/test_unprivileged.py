from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tmi_ops.postgres import unprivileged
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import NAMESPACE_UID, SERVER_USER, ServerIdentity, server_identity
from tmi_ops.recovery.point_in_time.server import owner_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def closed_directory(tmp_path: Path) -> Path:
    """As /root is: nobody but its owner may enter."""
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in most containers and in every chroot: the kernel forbids user namespaces."""
    may_run = unprivileged.can_run
    monkeypatch.setattr(unprivileged, "can_run", lambda who, *what: not who.namespace and may_run(who, *what))


def test_an_ordinary_user_runs_servers_as_himself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_identity(Path("/bin/true"), tmp_path) == ServerIdentity()


@as_root
def test_a_program_in_a_directory_that_only_root_may_enter_runs_in_a_user_namespace(closed_directory: Path) -> None:
    program = Path(shutil.copy("/bin/true", closed_directory / "postgres"))
    if not unprivileged.can_run(ServerIdentity(namespace=True), program, closed_directory):
        pytest.skip("the kernel forbids user namespaces here")
    identity = server_identity(program, closed_directory)
    assert identity == ServerIdentity(namespace=True)
    assert f"--map-user={NAMESPACE_UID}" in identity.command([program])


@pytest.mark.slow
@as_root
@pytest.mark.usefixtures("without_namespaces")
def test_where_namespaces_are_forbidden_a_whole_server_lives_behind_a_closed_directory(
    closed_directory: Path, programs: Programs
) -> None:
    assert server_identity(programs.path("postgres"), closed_directory) == ServerIdentity(
        user=SERVER_USER, passes_closed_directories=True
    )
    with scratch_cluster(programs, closed_directory) as cluster, connect(cluster.address) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (cluster.address.user,)
        assert (cluster.directory / "postmaster.pid").owner() == SERVER_USER


@as_root
@pytest.mark.usefixtures("without_namespaces")
def test_what_was_handed_to_nobody_is_run_by_nobody_again(closed_directory: Path) -> None:
    shutil.copy("/bin/true", closed_directory / "postgres")
    programs = Programs(closed_directory, 17, "17.10")
    recovered = closed_directory / "recovered"
    identity = owner_of(recovered, programs)
    recovered.mkdir()
    identity.take_over(recovered)
    assert recovered.owner() == SERVER_USER
    assert owner_of(recovered, programs) == identity


@as_root
def test_what_another_identity_left_is_taken_over(closed_directory: Path) -> None:
    left = closed_directory / "postmaster.opts"
    left.touch()
    ServerIdentity(user=SERVER_USER).take_over(closed_directory)
    assert left.owner() == SERVER_USER
    ServerIdentity(namespace=True).take_over(closed_directory)
    assert left.owner() == "root"
