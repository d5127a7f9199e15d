"""Kills each part of the machinery at ten moments of a backup, a drill and a prune, and asks what a person would ask
the morning after: did the next backup succeed, is nothing held, was it told? Results: benchmarks/kills.md.

    python -m benchmarks.kills [--victims worker,daemon] [--jobs backup] [--moments 0,5,9] [--write]

One embedded stack serves all cells, as one environment would: what a cell leaves behind meets the next. A moment is a
tenth of what the job took undisturbed. A cell takes about a minute, so all 150 take hours; the results of a
part replace those cells alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.stack.credentials import stack_credentials
from tmi_ops.stack.dagster_runs import REPOSITORY, await_code_location
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.postgresql import dagster_address, tmi_address
from tmi_ops.stack.state import StackState, stack_is_running

REPORT = Path(__file__).resolve().parent / "kills.md"
JOBS = {"backup": "logical_backup", "drill": "recovery_drill", "prune": "retention"}
MOMENTS = 10
# A run whose process vanished is noticed after 40 s and repeated within another 30; a busy machine takes its time.
PATIENCE_S = 300.0
FINAL_AFTER_S = 15.0
_OVER = ("SUCCESS", "FAILURE", "CANCELED")

_LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_RUNS = """query Runs { runsOrError(limit: 60) { ... on Runs { results {
  runId jobName status startTime endTime tags { key value } } } } }"""


class Unanswered(Exception):
    """The webserver did not answer, or refused."""


@dataclass(frozen=True)
class Cell:
    """One kill and what came of it. `told` names how; empty where nobody was told."""

    victim: str
    job: str
    moment: int
    run: str
    told: str
    held: str
    next_backup: str
    recovered_s: float

    @property
    def good(self) -> bool:
        return bool(self.told) and not self.held and self.next_backup == "SUCCESS"


@dataclass
class Stack:
    """A running stack and its ways in."""

    home: Path
    environment: dict[str, str]

    @property
    def state(self) -> StackState:
        found = stack_is_running(self.home)
        if found is None:
            raise SystemExit("the stack is gone")
        return found

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tmi_ops.cli.main", *arguments],
            env=self.environment,
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self.state.ui_url}/graphql",
            data=json.dumps({"query": query, "variables": variables or {}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                answer: dict[str, Any] = json.load(response)
        except (OSError, urllib.error.URLError) as error:
            raise Unanswered(str(error)) from None
        if answer.get("errors"):
            raise Unanswered(answer["errors"][0]["message"])
        data: dict[str, Any] = answer["data"]
        return data

    def launch(self, job: str) -> str:
        selector = {"repositoryLocationName": "tmi_ops", "repositoryName": REPOSITORY, "jobName": job}
        answer = self.ask(_LAUNCH, {"params": {"selector": selector, "runConfigData": {}}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise Unanswered(f"{answer['__typename']}: {answer.get('message', '')}"[:300])
        return str(answer["run"]["runId"])

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """The newest run of its chain of repetitions."""
        chain = [
            one
            for one in self.runs()
            if one["runId"] == run_id
            or any(tag == {"key": "dagster/root_run_id", "value": run_id} for tag in one["tags"])
        ]
        return {**chain[0], "length": len(chain)}

    def records(self) -> psycopg.Connection[Any]:
        password = stack_credentials(StackLayout(self.home).credentials).dagster_postgres
        address = dagster_address(self.state.ports.dagster_postgres, password)
        return psycopg.connect(**connection_parameters(address), autocommit=True)

    def source(self) -> psycopg.Connection[Any]:
        password = stack_credentials(StackLayout(self.home).credentials).postgres
        return psycopg.connect(**connection_parameters(tmi_address(self.state.ports.postgres, password)))

    def pid_of(self, service: str) -> int:
        return next(one.pid for one in self.state.services if one.name == service and one.pid)

    def code_servers(self) -> list[int]:
        """Those of the daemon and of the webserver, or the one for both."""
        return [pid for pid, words in self._processes() if re.search(r"dagster (api grpc|code-server)", words)]

    def workers(self) -> list[int]:
        """Processes of runs: children of code servers that hold a run's lock."""
        servers = set(self.code_servers())
        return [
            pid
            for pid, words in self._processes()
            if _parent(pid) in servers and "resource_tracker" not in words and pid not in servers
        ]

    def _processes(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and str(self.home).encode() in (entry / "environ").read_bytes():
                    yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def kill(stack: Stack, victim: str) -> int:
    """SIGKILL; how many died."""
    if victim == "worker":
        found = stack.workers()
    elif victim == "code server":
        found = stack.code_servers()
    elif victim == "records":
        data = StackLayout(stack.home).data("dagster-postgres") / "data"
        found = [await_(lambda: int((data / "postmaster.pid").read_text().splitlines()[0]))]
    else:
        found = [stack.pid_of({"daemon": "dagster-daemon", "webserver": "dagster-webserver"}[victim])]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


VICTIMS = ("daemon", "worker", "webserver", "code server", "records")


def await_(question: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first answer that is true; None after all patience. A part that is away is asked again."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(Unanswered, OSError, psycopg.Error, OpsError, StopIteration, IndexError, KeyError):
            if answer := question():
                return answer
        time.sleep(0.5)
    return None


def over(stack: Stack, run_id: str) -> dict[str, Any] | None:
    """The last run of the chain, once nothing more will come of it."""
    found = stack.run(run_id)
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    if found["status"] == "SUCCESS":
        return found
    # Dagster says a moment after the failure whether it will repeat the run.
    is_final = found["status"] in _OVER and time.time() - (found["endTime"] or 0) > FINAL_AFTER_S
    return found if is_final and tags.get("dagster/will_retry") != "true" else None


def held(stack: Stack) -> str:
    """What is still held once all is over: pools, locks on the source, receivers, runs that never end."""
    with stack.records() as records, stack.source() as source:
        questions = (
            (
                # A launch that was cut off leaves a run NOT_STARTED: Dagster fails and repeats it after five minutes.
                records,
                "runs not over",
                "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED', 'NOT_STARTED')",
            ),
            (records, "places in pools", "SELECT count(*) FROM concurrency_slots WHERE run_id IS NOT NULL"),
            (source, "locks on the source", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            (source, "receivers", "SELECT count(*) FROM pg_stat_replication"),
            (source, "temporary slots", "SELECT count(*) FROM pg_replication_slots WHERE temporary"),
        )
        counted = [(name, int(where.execute(query).fetchone()[0])) for where, name, query in questions]  # type: ignore[index, arg-type]
    return ", ".join(f"{count} {name}" for name, count in counted if count)


def try_cell(stack: Stack, victim: str, job: str, moment: int, took_s: float) -> Cell:
    """Kill once, and see what becomes of it."""
    run_id = await_(lambda: stack.launch(JOBS[job]))
    await_(lambda: stack.run(run_id)["status"] in ("STARTED", *_OVER))
    time.sleep(took_s * (moment + 0.5) / MOMENTS)
    restarts = sum(one.restarts for one in stack.state.services)
    killed = kill(stack, victim)
    began = time.monotonic()
    ended = await_(lambda: over(stack, run_id))
    following = await_(lambda: stack.launch(JOBS["backup"]), 120)
    backed_up = await_(lambda: over(stack, following)) if following else None
    recovered = time.monotonic() - began
    await_(lambda: not held(stack), 60)
    told = _told(stack, run_id, ended, restarts, killed)
    run = f"{ended['status']} ({ended['length']})" if ended else "never over"
    return Cell(victim, job, moment, run, told, held(stack), (backed_up or {}).get("status", "not launched"), recovered)


def _told(stack: Stack, run_id: str, ended: dict[str, Any] | None, restarts: int, killed: int) -> str:
    """Where a person could read of it; what ended well needs telling to nobody but the log."""
    if not killed:
        return "nothing to kill: it was over"
    if ended is None:
        return ""
    if ended["length"] > 1:
        return "failed run, repeated"
    if ended["status"] == "FAILURE":
        return "failed run"
    if sum(one.restarts for one in stack.state.services) > restarts:
        return "restart on record"
    return "run unharmed"


@contextmanager
def running_stack() -> Iterator[Stack]:
    """A stack with something to back up, to recover and to prune."""
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        Path(root).chmod(0o755)
        home = Path(root) / "home"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
        # Of what a cell leaves, prune has something to remove in the next.
        policy = {f"TMI_OPS_KEEP_{name}": "1" for name in ("LAST", "DAILY", "WEEKLY", "MONTHLY")}
        stack = Stack(
            home, {**kept, **policy, "TMI_OPS_HOME": str(home), "TERM": "dumb", "TMI_OPS_RECOVERY_WINDOW": "1d"}
        )
        try:
            for command in (
                ("up", "--detach"),
                ("migrate",),
                ("wal", "stream", "--catch-up", "--quiet"),
                ("backup", "base", "--quiet"),
                ("heartbeat",),
                ("wal", "stream", "--catch-up", "--quiet"),
            ):
                done = stack.command(*command)
                if done.returncode:
                    raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
            await_code_location(str(stack.state.ui_url))
            yield stack
        finally:
            stack.command("down")


def undisturbed_s(stack: Stack, job: str) -> float:
    """How long the job takes when nobody dies."""
    run_id = stack.launch(JOBS[job])
    run = await_(lambda: over(stack, run_id))
    if not run or run["status"] != "SUCCESS":
        raise SystemExit(f"{job} does not succeed undisturbed: {run}")
    return float(run["endTime"] - run["startTime"])


def main(arguments: list[str]) -> None:
    """Prints each cell as it is known, and with --write keeps them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--moments", default=",".join(map(str, range(MOMENTS))))
    parser.add_argument("--write", action="store_true")
    how = parser.parse_args(arguments)
    cells = _kept()
    with running_stack() as stack:
        for job in how.jobs.split(","):
            took = undisturbed_s(stack, job)
            print(f"{job} takes {took:.1f} s", flush=True)
            for victim in how.victims.split(","):
                for moment in map(int, how.moments.split(",")):
                    cell = try_cell(stack, victim, job, moment, took)
                    cells[victim, job, moment] = cell
                    print("ok  " if cell.good else "BAD ", cell, flush=True)
                    if how.write:
                        REPORT.write_text(_report(cells))


def _kept() -> dict[tuple[str, str, int], Cell]:
    """The cells of earlier runs, from the table."""
    row = r"^\| (.+?) \| (\w+) \| (\d) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| ([\d.]+) \|$"
    rows = re.findall(row, REPORT.read_text() if REPORT.exists() else "", re.MULTILINE)
    return {
        (victim, job, int(moment)): Cell(victim, job, int(moment), run, told, ended_held, following, float(spent))
        for victim, job, moment, run, told, ended_held, following, spent in rows
    }


def _report(cells: Mapping[tuple[str, str, int], Cell]) -> str:
    bad = [cell for cell in cells.values() if not cell.good]
    rows = [
        f"| {one.victim} | {one.job} | {one.moment} | {one.run} | {one.told} | {one.held} | {one.next_backup} "
        f"| {one.recovered_s:.0f} |"
        for _, one in sorted(cells.items())
    ]
    return "\n".join(
        [
            "# Kills",
            "",
            f"Made by `python -m benchmarks.kills --write`, last on {date.today():%Y-%m-%d}: SIGKILL to one part",
            f"at each tenth of a job's time. {len(cells)} of {len(VICTIMS) * len(JOBS) * MOMENTS} cells were run,",
            f"{len(bad)} of them ended badly. `run`: how the run that was hit ended, and how many runs it took.",
            "`held`: what was still held a minute after all was over. `s`: until the next backup had succeeded, on two",
            "busy cores.",
            "",
            "| killed | during | tenth | run | told | held | next backup | s |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
