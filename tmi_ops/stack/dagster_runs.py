"""Ask the stack's Dagster to run a job, and follow the run, through the webserver's GraphQL.

The command line never imports dagster; the webserver is asked as a browser would.
Source: https://docs.dagster.io/api/graphql
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tmi_ops.errors import StackError

REPOSITORY = "__repository__"
REQUEST_TIMEOUT_S = 30
POLL_EVERY_S = 0.5
_OVER = {"SUCCESS", "FAILURE", "CANCELED"}

_LOCATIONS = """
query { workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } }
} }
"""
_RUN = """
query Run($id: ID!) { runOrError(runId: $id) { ... on Run {
  status
  stepStats { stepKey status }
} } }
"""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is: its status, and each step's."""

    run_id: str
    status: str
    steps: Mapping[str, str]

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCESS"


def await_code_location(ui_url: str, timeout_s: float = 90) -> str:
    """Wait until the webserver has loaded its code location, and return its name.

    Raises:
        StackError: it did not load in time, or could not be loaded; the message carries why.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        entries = _ask(ui_url, _LOCATIONS)["workspaceOrError"].get("locationEntries", [])
        for entry in entries:
            loaded = entry["locationOrLoadError"] or {}
            if loaded.get("__typename") == "PythonError":
                raise StackError(f"Dagster could not load {entry['name']}: {loaded['message'].strip()}")
            if entry["loadStatus"] == "LOADED":
                return str(entry["name"])
        time.sleep(POLL_EVERY_S)
    raise StackError(f"Dagster did not load its code location within {timeout_s:.0f} s.")


def launch_job(ui_url: str, location: str, job: str) -> str:
    """Launch a job and return the run's id.

    Raises:
        StackError: Dagster refused.
    """
    params = {
        "selector": {"repositoryLocationName": location, "repositoryName": REPOSITORY, "jobName": job},
        "runConfigData": {},
    }
    answer = _ask(ui_url, _LAUNCH, {"params": params})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise StackError(f"Dagster refused to launch {job}: {answer}")
    return str(answer["run"]["runId"])


def follow_run(ui_url: str, run_id: str, watch: Callable[[RunProgress], None], timeout_s: float = 600) -> RunProgress:
    """Call `watch` with each reading until the run is over; returns the last reading.

    Raises:
        StackError: the run is not over in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        run = _ask(ui_url, _RUN, {"id": run_id})["runOrError"]
        steps = {step["stepKey"]: step["status"] for step in run.get("stepStats") or []}
        progress = RunProgress(run_id, run["status"], steps)
        watch(progress)
        if progress.over:
            return progress
        time.sleep(POLL_EVERY_S)
    raise StackError(f"The run {run_id} is not over after {timeout_s:.0f} s.", hint=f"see {ui_url}/runs/{run_id}")


def _ask(ui_url: str, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - always our own loopback address
        f"{ui_url}/graphql",
        data=json.dumps({"query": query, "variables": variables or {}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
    except (urllib.error.URLError, TimeoutError) as error:
        raise StackError(
            f"Dagster's webserver at {ui_url} does not answer: {error}.", hint="tmi-ops stack status"
        ) from None
    if answer.get("errors"):
        raise StackError(f"Dagster's webserver refused a question: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data
