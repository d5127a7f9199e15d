"""Running what is measured, as processes of its own, and watching the memory of the whole tree of them.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

SAMPLE_INTERVAL_S = 0.02
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Run:
    """What one run took: seconds by the wall clock, CPU seconds of its processes, their highest memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_memory: int


def run_pipeline(commands: Sequence[Sequence[str | Path]], env: Mapping[str, str]) -> Run:
    """Run commands joined by pipes, as `a | b` does, and wait for all of them.

    Args:
        env: variables added to our own; secrets travel here.

    Raises:
        RuntimeError: one of them failed; with what it said.
    """
    environment = {**os.environ, **env}
    cpu_before = _cpu_of_children()
    started = time.monotonic()
    with ExitStack() as open_files:
        processes: list[subprocess.Popen[bytes]] = []
        for position, command in enumerate(commands):
            last = position == len(commands) - 1
            process = subprocess.Popen(
                [str(word) for word in command],
                env=environment,
                stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if last else subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            if processes and processes[-1].stdout is not None:
                processes[-1].stdout.close()  # so that a writer learns of a reader that ended
            processes.append(process)
            if process.stderr is not None:
                open_files.enter_context(process.stderr)
        watch = _MemoryWatch([process.pid for process in processes])
        said = [_read_to_end(process) for process in processes]
        seconds = time.monotonic() - started
        peak = watch.stop()
    for process, words in zip(processes, said, strict=True):
        if process.returncode != 0:
            raise RuntimeError(f"{process.args!r} failed with exit code {process.returncode}: {words}")
    return Run(seconds, _cpu_of_children() - cpu_before, peak)


def cpu_of_tree(root: int) -> float:
    """CPU seconds that a process, its children that live and those that ended have used so far."""
    ticks = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended, and counts as its parent's
        ticks += sum(map(int, fields[11:15]))
        waiting += _children(pid)
    return ticks / os.sysconf("SC_CLK_TCK")


def own_cpu(pid: int) -> float:
    """CPU seconds of a process alone, without any child's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def memory_of_tree(root: int) -> int:
    """Bytes of memory of a process and its living children; a page that several share counts in parts (PSS)."""
    found, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        found += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        waiting += _children(pid)
    return found


class CpuWatch:
    """CPU seconds that others use for the length of a block, by name, in `seconds` afterwards.

    Args:
        roots: process ids; each counts with its children, those that ended too.
        words: of processes that belong to nobody: all whose command line holds the word. They are sampled, so what one
            uses in its last moment is lost.
    """

    def __init__(self, roots: Mapping[str, int], words: Mapping[str, str] | None = None) -> None:
        self._roots, self._words = roots, words or {}
        self._before: dict[str, float] = {}
        self._sampled: dict[str, dict[int, float]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> CpuWatch:
        self._before = {name: cpu_of_tree(root) for name, root in self._roots.items()}
        self._known = {name: self._sample(word) for name, word in self._words.items()}
        self._sampled = {name: {} for name in self._words}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seconds = {name: cpu_of_tree(root) - self._before[name] for name, root in self._roots.items()}
        for name, found in self._sampled.items():
            known = self._known[name]
            self.seconds[name] = sum(used - known.get(pid, 0.0) for pid, used in found.items())

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_INTERVAL_S):
            for name, word in self._words.items():
                self._sampled[name].update(self._sample(word))

    @staticmethod
    def _sample(word: str) -> dict[int, float]:
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return {pid: cpu_of_tree(pid) for pid in pids if word.encode() in _command(pid)}


def _read_to_end(process: subprocess.Popen[bytes]) -> str:
    words = process.stderr.read().decode(errors="replace") if process.stderr is not None else ""
    process.wait()
    return words.strip()[-2000:]


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _MemoryWatch:
    """Samples the resident memory of processes and all their descendants. Shared pages count in each."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_INTERVAL_S):
            waiting, total = list(self._roots), 0
            while waiting:
                pid = waiting.pop()
                total += _resident_bytes(pid)
                # A child that has not become its program yet shares our memory, and is no process of its own.
                ours = _command(pid)
                waiting += [child for child in _children(pid) if _command(child) != ours]
            self._peak = max(self._peak, total)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_SIZE
    except (OSError, IndexError):
        return 0  # it has just ended


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found
