from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tmi_ops.errors import DiskSpaceError, ProgramError
from tmi_ops.postgres.cluster import require_free_space, scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs

pytestmark = pytest.mark.slow

_HOLD_A_CLUSTER = """
import sys, time
from pathlib import Path
from tmi_ops.postgres.cluster import scratch_cluster
from tmi_ops.postgres.programs import server_programs
with scratch_cluster(server_programs(17), Path(sys.argv[1])) as cluster:
    print(cluster.process.pid, flush=True)
    time.sleep(600)
"""


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until(condition: object, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


def test_a_scratch_cluster_works_and_leaves_nothing(programs: Programs, tmp_path: Path) -> None:
    with scratch_cluster(programs, tmp_path) as cluster:
        pid = cluster.process.pid
        with connect(cluster.address) as connection:
            assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
            assert connection.execute("SHOW password_encryption").fetchone() == ("scram-sha-256",)
    assert not _is_alive(pid)
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_the_block_leaves_nothing_either(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch_cluster(programs, tmp_path) as cluster:
        pid = cluster.process.pid
        raise RuntimeError
    assert not _is_alive(pid)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_server_and_no_file_outlives_the_process_that_wanted_them(tmp_path: Path, how: signal.Signals) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD_A_CLUSTER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    server = int(holder.stdout.readline())
    assert _is_alive(server)
    os.kill(holder.pid, how)
    holder.wait()
    assert _wait_until(lambda: not _is_alive(server))
    assert _wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_the_password_is_in_no_argument_of_any_process(programs: Programs, tmp_path: Path) -> None:
    with scratch_cluster(programs, tmp_path) as cluster:
        assert cluster.address.password is not None
        secret = cluster.address.password.get_secret_value().encode()
        seen = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert any(b"postgres" in line for line in seen)
    assert not any(secret in line for line in seen)


def test_a_server_that_does_not_start_says_why(programs: Programs, tmp_path: Path) -> None:
    with (
        pytest.raises(ProgramError, match="shared_buffers"),
        scratch_cluster(programs, tmp_path, parameters={"shared_buffers": "nonsense"}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_more_than_what_is_free_is_refused(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "yet", 1, "Nothing much")
    with pytest.raises(DiskSpaceError, match=r"A huge thing needs 1000\.0 PB") as caught:
        require_free_space(tmp_path, 10**18, "A huge thing")
    assert "TMI_OPS_HOME" in caught.value.hint
