"""A real stack in a process of its own, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from tmi_ops.stack.background import stop_stack
from tmi_ops.stack.state import StackState, stack_is_running

T = TypeVar("T")
PATIENCE_S = 120.0


GUARD = "tmi-ops-guard"


@dataclass
class CommandLine:
    """`tmi-ops` with a home of its own and no settings from outside."""

    home: Path
    directory: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(
        self, *arguments: str, stdin: str = "", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._argv(arguments),
            input=stdin,
            env=self._environment() | dict(variables or {}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """In a session of its own, so that a signal to it reaches nobody else."""
        process = subprocess.Popen(
            self._argv(arguments),
            env=self._environment() | dict(variables or {}),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def up(self, *options: str) -> tuple[subprocess.Popen[str], StackState]:
        """`tmi-ops up` in the foreground, until all of it answers."""
        process = self.start("up", *options)
        return process, self.await_ready(process)

    def await_ready(self, supervisor: subprocess.Popen[str]) -> StackState:
        def ready() -> StackState | None:
            assert supervisor.poll() is None, supervisor.communicate()[0]
            state = stack_is_running(self.home)
            return state if state is not None and state.ready else None

        return await_(ready, "the stack is up")

    def processes(self) -> dict[int, str]:
        """Processes of this stack: servers, guards and their children, however they renamed themselves."""
        found, guards = {}, {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # it ended meanwhile
                if entry.name.isdigit():
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if GUARD in words:  # it has nothing of our environment; whom it guards says whose it is
                        guards[int(entry.name)] = words
                    elif self._is_ours(entry):
                        found[int(entry.name)] = " ".join(words)
        of_ours = {pid: words for pid, words in guards.items() if int(words[words.index(GUARD) + 1]) in found}
        return found | {pid: " ".join(words) for pid, words in of_ours.items()}

    def _is_ours(self, process: Path) -> bool:
        home = str(self.home)
        return home in str((process / "cwd").readlink()) or any(
            home.encode() in (process / facts).read_bytes() for facts in ("cmdline", "environ")
        )

    def await_silence(self) -> None:
        """No process of this stack is left."""
        await_(lambda: not self.processes(), "no process is left", describe=self.processes)

    def _argv(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "tmi_ops.cli.main", *arguments]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "SSL_CERT_FILE")}
        return {**kept, "TMI_OPS_HOME": str(self.home), "TERM": "dumb", "COLUMNS": "120"}


def await_(question: Callable[[], T | None], what: str, describe: Callable[[], object] = lambda: "") -> T:
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s in vain until {what}; {describe()}"
        time.sleep(0.1)
    return answer


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[CommandLine]:
    """A home of its own for one test."""
    with command_line(tmp_path) as commands:
        yield commands


@contextmanager
def command_line(root: Path) -> Iterator[CommandLine]:
    """A home of its own; whatever runs there is ended afterwards."""
    commands = CommandLine(root / "home", root)
    yield commands
    stop_stack(commands.home)
    for process in commands.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    commands.await_silence()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A stack without Dagster that is up for a whole module."""
    root = tmp_path_factory.mktemp("standing")
    commands = CommandLine(root / "home", root)
    done = commands.run("up", "--detach", "--no-dagster")
    assert done.returncode == 0, done.stderr
    yield commands
    stop_stack(commands.home)
    commands.await_silence()
