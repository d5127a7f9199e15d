"""A reader who goes away, or a terminal that does, neither stops a command nor changes its exit code."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_COMMAND = """
import sys, time
import click
from rich.markup import escape
from tmi_ops.cli import main as cli
from tmi_ops.cli.streams import reader_is_gone, through_hangups
from tmi_ops.cli.terminal import err, out

@click.command()
def stubborn():
    with through_hangups():
        open("begun", "w").close()
        for number in range(400):
            click.echo("a line that fills the pipe " * 20)
            out.print(number)
            err.print(number)
            time.sleep(0.001)
        open("ended", "w").write(str(reader_is_gone()))
    return 1

cli.tmi_ops.main = lambda args, **how: stubborn.main(args, **how)
cli.main([])
"""


def begun(directory: Path, **streams: int) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ["PATH"]}
    process = subprocess.Popen([sys.executable, "-c", _COMMAND], cwd=directory, env=environment, **streams)
    while not (directory / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_a_closed_pipe_changes_nothing(tmp_path: Path) -> None:
    process = begun(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert (tmp_path / "ended").read_text() == "True"


@pytest.mark.slow
def test_a_lost_terminal_changes_nothing(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = begun(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.read(ours, 100)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 1
    assert (tmp_path / "ended").exists()


def test_a_caller_who_closed_stderr_gets_the_output_and_the_exit_code() -> None:
    program = f"{shlex.quote(sys.executable)} -m tmi_ops.cli.main --version 2>&-"
    done = subprocess.run(["/bin/sh", "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "tmi-ops,")
