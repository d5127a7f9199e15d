from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tmi_ops.errors import ProgramError
from tmi_ops.postgres import unprivileged
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import NAMESPACE_UID, SERVER_USER, ServerIdentity, closed_gate, server_identity
from tmi_ops.private import no_link
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


@pytest.fixture
def below(closed_directory: Path, programs: Programs) -> tuple[Programs, Path]:
    """A whole PostgreSQL and a place for its data below a closed directory, as in a checkout below /root."""
    shutil.copytree(programs.bindir.parent, closed_directory / "pg", symlinks=True)
    (closed_directory / "scratch").mkdir()
    return replace(programs, bindir=closed_directory / "pg" / "bin"), closed_directory / "scratch"


@pytest.mark.slow
@as_root
def test_code_in_a_server_behind_a_closed_directory_sees_of_it_the_programs_and_the_data_alone_and_is_not_root(
    below: tuple[Programs, Path], closed_directory: Path
) -> None:
    programs, scratch = below
    identity = server_identity(programs.path("postgres"), scratch, confined=True)
    if not identity.opened:
        pytest.skip("the kernel forbids mount namespaces here")
    assert identity == ServerIdentity(user=SERVER_USER, opened=(closed_directory / "pg", scratch))
    secret = closed_directory / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    attack = f"id -un; ls {closed_directory}; cat {secret}; echo yours > {secret}; touch {closed_directory}/made; true"
    with scratch_cluster(programs, scratch) as cluster, connect(cluster.address) as connection:
        connection.execute("CREATE TABLE seen (line text)")
        connection.execute(f"COPY seen FROM PROGRAM '{attack}'")
        seen = [line for (line,) in connection.execute("SELECT line FROM seen").fetchall()]
    assert seen == [SERVER_USER, "pg", "scratch"]
    assert secret.read_text() == "mine"
    assert not (closed_directory / "made").exists()


@as_root
def test_a_recovered_cluster_below_a_closed_directory_has_a_view_of_its_own_from_its_first_start_on(
    closed_directory: Path,
) -> None:
    """Also once its files belong to the server's account; not where a tablespace may lie elsewhere."""
    bindir, place = closed_directory / "pg" / "bin", closed_directory / "drill"
    bindir.mkdir(parents=True)
    shutil.copy("/bin/true", bindir / "postgres")
    place.mkdir(mode=0o755)
    programs, data = Programs(bindir, 17, "17.1"), place / "data"
    identity = owner_of(data, programs, together=True)
    if not identity.opened:
        pytest.skip("the kernel forbids mount namespaces here")
    assert identity == ServerIdentity(user=SERVER_USER, opened=(closed_directory / "pg", place))
    data.mkdir(mode=0o700)
    identity.take_over(data)
    assert owner_of(data, programs, together=True) == identity
    assert not owner_of(data, programs).opened


@as_root
@pytest.mark.parametrize("level", ["file", "directory", "above"])
def test_a_link_that_code_of_a_database_laid_leads_no_file_of_ours_elsewhere(level: str) -> None:
    """Such code runs as the server's account, to which the data directory belongs; we write there as root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as root:  # pytest's own lies behind a closed one
        top, identity = Path(root), ServerIdentity(user=SERVER_USER)
        top.chmod(0o755)
        victim, feed = top / "victim", top / "data" / "work" / "feed"
        victim.mkdir()
        (victim / "feed").mkdir()
        for target in (victim / "0A", victim / "feed" / "0A"):
            target.write_text("root's")
        feed.mkdir(parents=True)
        identity.take_over(top / "data")
        if level == "file":
            (feed / "0A").symlink_to(victim / "0A")
            identity.write(feed / "0A", b"wal")
            assert (feed / "0A").read_bytes() == b"wal"
            assert (feed / "0A").owner() == SERVER_USER
        else:
            moved = feed if level == "directory" else feed.parent
            moved.rename(top / "data" / "aside")
            moved.symlink_to(victim)
            with pytest.raises(ProgramError, match=f"is a link that {SERVER_USER} may have created"):
                identity.write(feed / "0A", b"wal")
        assert {file.read_text() for file in (victim / "0A", victim / "feed" / "0A")} == {"root's"}
        (top / "data" / "link").symlink_to(victim)
        identity.take_over(top / "data")
        assert (victim / "0A").owner() == "root"


def test_a_log_that_became_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "server.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="Too many levels"):
        open(tmp_path / "server.log", "ab", opener=no_link)  # noqa: SIM115


def test_the_outermost_closed_directory_is_the_gate() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # pytest's own lies behind a closed one
        top = Path(directory)
        top.chmod(0o755)
        closed = top / "open" / "closed"
        data = closed / "open" / "closed" / "data"
        data.mkdir(parents=True)
        assert closed_gate(data, None) is None
        data.parent.chmod(0o700)
        assert closed_gate(data, None) == data.parent
        closed.chmod(0o700)
        assert closed_gate(data, None) == closed
        assert closed_gate(closed, None) is None


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
