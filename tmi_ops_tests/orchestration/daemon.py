"""Dagster's webserver asked as its UI asks it: sensors, their looks, and the runs they began."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tmi_ops.stack.dagster_runs import REPOSITORY, await_code_location

_START = "mutation Start($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename } }"
_TICKS = """query Ticks($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
  sensorState { ticks(limit: 40) { timestamp endTimestamp status skipReason runKeys error { message } } } } } }"""
_LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on RunConfigValidationInvalid { errors { message } } } }"""
_CANCEL = "mutation Cancel($run: String!) { terminateRun(runId: $run) { __typename } }"
_STEP = """query Step($run: ID!) { runOrError(runId: $run) { ... on Run {
  status stepStats { startTime endTime attempts { startTime } } } } }"""
_RUNS = """query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
  runId jobName status startTime endTime } } } }"""


@dataclass(frozen=True)
class Tick:
    """One look of a sensor."""

    status: str
    ended_at: float
    said: str
    run_keys: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """The one step of a run, by its event log; 0: it has not begun or ended yet."""

    run_status: str
    began: float = 0.0
    ended: float = 0.0
    attempts: int = 0


class Daemon:
    """The Dagster of a running stack."""

    def __init__(self, ui_url: str) -> None:
        self._ui_url = ui_url
        self._location = await_code_location(ui_url)

    def start_sensor(self, name: str) -> None:
        answer = self._ask(_START, {"sensor": self._selector(name)})
        assert answer["startSensor"]["__typename"] == "Sensor", answer

    def ticks(self, name: str) -> list[Tick]:
        """Those that are over, the newest first."""
        found = self._ask(_TICKS, {"sensor": self._selector(name)})["sensorOrError"]["sensorState"]["ticks"]
        return [
            Tick(
                one["status"],
                one["endTimestamp"] or 0.0,
                one["skipReason"] or (one["error"] or {}).get("message", ""),
                tuple(one["runKeys"]),
            )
            for one in found
            if one["status"] != "STARTED"
        ]

    def launch(self, job: str, asset: str, **config: object) -> str:
        """Begin a job whose one asset gets this configuration; returns the run's id."""
        selector = {"repositoryLocationName": self._location, "repositoryName": REPOSITORY, "jobName": job}
        params = {"selector": selector, "runConfigData": {"ops": {asset: {"config": config}}}}
        answer = self._ask(_LAUNCH, {"params": params})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def cancel(self, run_id: str) -> None:
        """As the button in the UI does."""
        answer = self._ask(_CANCEL, {"run": run_id})["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def step(self, run_id: str) -> Step:
        """How far a run of one step is."""
        run = self._ask(_STEP, {"run": run_id})["runOrError"]
        for found in run["stepStats"]:
            return Step(run["status"], found["startTime"] or 0.0, found["endTime"] or 0.0, len(found["attempts"]))
        return Step(run["status"])

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """With all of these tags; `tmi_ops/cures` is written `cures`."""
        wanted = [{"key": f"tmi_ops/{name}", "value": value} for name, value in tags.items()]
        found: list[dict[str, Any]] = self._ask(_RUNS, {"filter": {"tags": wanted}})["runsOrError"]["results"]
        return found

    def _selector(self, sensor: str) -> dict[str, str]:
        return {
            "repositoryLocationName": self._location,
            "repositoryName": REPOSITORY,
            "sensorName": sensor,
        }

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 our own loopback address
            f"{self._ui_url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
        assert not answer.get("errors"), answer
        data: dict[str, Any] = answer["data"]
        return data
