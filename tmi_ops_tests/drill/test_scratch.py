"""The directory of a drill is removed with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tmi_ops.drill.scratch import drill_directory, remove_abandoned


def test_the_directory_is_gone_after_success_and_after_failure(tmp_path: Path) -> None:
    with drill_directory(tmp_path / "scratch") as directory:
        (directory / "data").mkdir()
    assert not directory.exists()
    with pytest.raises(RuntimeError), drill_directory(tmp_path / "scratch") as directory:
        raise RuntimeError
    assert not directory.exists()


def test_what_a_killed_drill_left_the_next_one_removes_and_a_living_ones_stays(tmp_path: Path) -> None:
    waits = (
        "import sys, time; from pathlib import Path; from tmi_ops.drill.scratch import drill_directory\n"
        "with drill_directory(Path(sys.argv[1])) as directory: print(directory, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", waits, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert left.is_dir()
    assert remove_abandoned(tmp_path) == []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with drill_directory(tmp_path) as directory:
        assert not left.exists()
        assert directory.is_dir()


def test_a_place_that_was_never_made_has_nothing_to_remove(tmp_path: Path) -> None:
    assert remove_abandoned(tmp_path / "absent") == []
