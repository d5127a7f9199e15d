"""Launches a job in the stack's Dagster and follows the run, through the webserver's GraphQL API.

The command line never imports dagster.
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

from tmi_ops.error_codes import Code
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
    """The status of a run and of its steps."""

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
        StackError: it did not load in time, or could not be loaded; the message says why.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        entries = _ask(ui_url, _LOCATIONS)["workspaceOrError"].get("locationEntries", [])
        for entry in entries:
            loaded = entry["locationOrLoadError"] or {}
            if loaded.get("__typename") == "PythonError":
                raise StackError(
                    f"Dagster could not load {entry['name']}: {loaded['message'].strip()}", code=Code.STACK_DAGSTER
                )
            if entry["loadStatus"] == "LOADED":
                return str(entry["name"])
        time.sleep(POLL_EVERY_S)
    raise StackError(f"Dagster did not load its code location within {timeout_s:.0f} s.", code=Code.STACK_DAGSTER)


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
        raise StackError(f"Dagster refused to launch {job}: {answer}", code=Code.STACK_DAGSTER)
    return str(answer["run"]["runId"])


def follow_run(ui_url: str, run_id: str, watch: Callable[[RunProgress], None], timeout_s: float = 600) -> RunProgress:
    """Call `watch` with each status until the run has ended; returns the last status.

    Raises:
        StackError: the run did not end in time.
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
    raise StackError(
        f"Run {run_id} did not end within {timeout_s:.0f} s.",
        detail="It is still running.",
        hint=f"see {ui_url}/runs/{run_id}",
        code=Code.STACK_DAGSTER,
    )


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
            f"Dagster's webserver at {ui_url} does not answer: {error}.",
            hint="check the stack with `tmi-ops stack status`",
            code=Code.STACK_DAGSTER,
        ) from None
    if answer.get("errors"):
        raise StackError(
            f"Dagster's webserver refused a query: {answer['errors'][0]['message']}", code=Code.STACK_DAGSTER
        )
    data: dict[str, Any] = answer["data"]
    return data
