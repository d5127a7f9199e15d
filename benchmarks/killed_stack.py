"""The embedded stack that benchmarks/kills.py kills parts of, and its ways in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.stack.credentials import stack_credentials
from tmi_ops.stack.dagster_runs import REPOSITORY, await_code_location
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.orchestrator import checkout_file
from tmi_ops.stack.postgresql import dagster_address, tmi_address
from tmi_ops.stack.state import StackState, stack_is_running

LOCATION = "tmi_ops"
SCHEDULE = "nightly_logical_backup"
SENSORS = ("failed_run", "recovered_run")
PACES = {
    "poll_interval_seconds: 15": "poll_interval_seconds: 5",
    "free_slots_after_run_end_seconds: 15": "free_slots_after_run_end_seconds: 5",
}
# Imported by every Python of the stack before anything else: the nightly backup comes every minute.
EVERY_MINUTE = """
import dataclasses
try:
    from datetime import timedelta
    import tmi_ops.objectives.timetable as timetable
except ImportError:
    pass
else:
    def _plan(objectives, plan=timetable.plan_timetable):
        logical = timetable.Cadence(("* * * * *",), timedelta(minutes=1), "every minute")
        return dataclasses.replace(plan(objectives), logical=logical)
    timetable.plan_timetable = _plan
"""

_LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_RUNS = """query Runs { runsOrError(limit: 30) { ... on Runs { results {
  runId jobName status creationTime startTime endTime tags { key value } } } } }"""
_START_SCHEDULE = """mutation Start($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename } }"""
_STOP_SCHEDULE = """mutation Stop($id: String!) { stopRunningSchedule(id: $id) { __typename } }"""
_SCHEDULE_ID = """query Schedule($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
  ... on Schedule { scheduleState { id status } } } }"""
_START_SENSOR = """mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename } }"""


_OURS = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}


class Unanswered(Exception):
    """The webserver did not answer, or refused."""


@dataclass
class Stack:
    """A running stack and its ways in. `heard`: what the alert channel got, and when."""

    home: Path
    environment: dict[str, str]
    heard: list[tuple[float, str]] = field(default_factory=list)

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

    def tell_of_runs(self) -> None:
        """Switch on the sensors that do."""
        for sensor in SENSORS:
            self.ask(_START_SENSOR, {"selector": {**_OURS, "sensorName": sensor}})

    def schedule_runs(self, *, wanted: bool) -> bool:
        """Switch the schedule on or off; whether it is as wanted."""
        selector = {"selector": {**_OURS, "scheduleName": SCHEDULE}}
        state = self.ask(_SCHEDULE_ID, selector)["scheduleOrError"]["scheduleState"]
        if (state["status"] == "RUNNING") is wanted:
            return True
        if wanted:
            self.ask(_START_SCHEDULE, selector)
        else:
            self.ask(_STOP_SCHEDULE, {"id": state["id"]})
        return False  # until it is seen to be so

    def launch(self, job: str) -> str:
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
        answer = self.ask(_LAUNCH, {"params": {"selector": selector, "runConfigData": {}}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise Unanswered(f"{answer['__typename']}: {answer.get('message', '')}"[:300])
        return str(answer["run"]["runId"])

    def runs(self) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return [{**one, "tags": {tag["key"]: tag["value"] for tag in one["tags"]}} for one in found]

    def run(self, run_id: str) -> dict[str, Any]:
        """The newest run of its chain of repetitions."""
        chain = [one for one in self.runs() if run_id in (one["runId"], one["tags"].get("dagster/root_run_id"))]
        return {**chain[0], "length": len(chain)}

    def scheduled_since(self, since: float) -> str:
        """The first run that the schedule began after a moment; empty: there is none yet."""
        begun = [one for one in self.runs() if "dagster/schedule_name" in one["tags"] and one["creationTime"] > since]
        return str(begun[-1]["runId"]) if begun else ""

    def at_work(self) -> int:
        """How many runs are not over."""
        with self.records() as records:
            query = "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED', 'NOT_STARTED')"
            return int(records.execute(query).fetchone()[0])  # type: ignore[index]

    def events(self, run_id: str) -> list[str]:
        """The types of what a run has reported, in order; a line of its log is its words."""
        with self.records() as records:
            query = (
                "SELECT coalesce(dagster_event_type, left(event::json->>'user_message', 40)) FROM event_logs"
                " WHERE run_id = %s ORDER BY id"
            )
            return [str(one).replace("|", "/") for (one,) in records.execute(query, (run_id,))]

    def records(self) -> psycopg.Connection[Any]:
        password = stack_credentials(StackLayout(self.home).credentials).dagster_postgres
        address = dagster_address(self.state.ports.dagster_postgres, password)
        return psycopg.connect(**connection_parameters(address), autocommit=True)

    def source(self) -> psycopg.Connection[Any]:
        password = stack_credentials(StackLayout(self.home).credentials).postgres
        return psycopg.connect(**connection_parameters(tmi_address(self.state.ports.postgres, password)))

    def pid_of(self, service: str) -> int:
        return next(one.pid for one in self.state.services if one.name == service and one.pid)

    def postmaster_of_records(self) -> int:
        data = StackLayout(self.home).data("dagster-postgres") / "data"
        return int((data / "postmaster.pid").read_text().splitlines()[0])

    def worker_of(self, run_id: str) -> int:
        """The process of a run, as its code server reported it; 0: it has none yet, or no longer."""
        with self.records() as records:
            query = (
                "SELECT substring(event FROM 'Started process for run [(]pid: ([0-9]+)') FROM event_logs"
                " WHERE run_id = %s AND event LIKE '%%Started process for run%%'"
            )
            row = records.execute(query, (run_id,)).fetchone()
        pid = int(row[0]) if row else 0
        return pid if any(pid == one and "spawn_main" in words for one, words in self._processes()) else 0

    def scratch_servers(self) -> list[int]:
        """Servers over copies: postgres with its data below the home's scratch directory."""
        scratch = f"{self.home}/scratch"
        return [pid for pid, words in self._processes() if scratch in words and "postgres" in words]

    def _processes(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and str(self.home).encode() in _said(entry):
                    yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")


def _said(entry: Path) -> bytes:
    return (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()


@contextmanager
def running_stack() -> Iterator[Stack]:
    """A stack with something to back up, to recover and to prune, whose schedule begins a backup every minute."""
    with tempfile.TemporaryDirectory(prefix="kills-") as root, _channel() as (url, heard):
        directory = Path(root)
        directory.chmod(0o755)
        # What `up` finds in the working directory comes before the committed one.
        instance = checkout_file("dagster.yaml").read_text()
        for pace, shorter in PACES.items():
            if pace not in instance:
                raise SystemExit(f"dagster.yaml does not say {pace!r} any more")
            instance = instance.replace(pace, shorter)
        (directory / "dagster.yaml").write_text(instance)
        (directory / "first").mkdir()
        (directory / "first" / "sitecustomize.py").write_text(EVERY_MINUTE)
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        # Of what a cell leaves, prune has something to remove in the next.
        policy = {f"TMI_OPS_KEEP_{name}": "1" for name in ("LAST", "DAILY", "WEEKLY", "MONTHLY")}
        home = directory / "home"
        environment = {
            **kept,
            **policy,
            "PYTHONPATH": os.pathsep.join((str(directory / "first"), str(Path(__file__).resolve().parent.parent))),
            "TMI_OPS_HOME": str(home),
            "TMI_OPS_RECOVERY_WINDOW": "1d",
            "TMI_OPS_ALERT_URLS": url,
            "TERM": "dumb",
        }
        stack = Stack(home, environment, heard)
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
            stack.tell_of_runs()
            yield stack
        finally:
            stack.command("down")


@contextmanager
def _channel() -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """An alert channel of apprise's kind json://, and what it hears."""
    heard: list[tuple[float, str]] = []

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            heard.append((time.time(), self.rfile.read(length).decode(errors="replace")))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hears)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
