"""Kills each part of the machinery at ten moments of a backup, a drill and a prune, and asks what a person would ask
the morning after: did the next scheduled backup succeed, is nothing held, was somebody told? Results: kills.md.

    python -m benchmarks.kills FILE [--part 0/2] [--victims worker,daemon] [--jobs backup] [--moments 0,5,9]
    python -m benchmarks.kills FILE --write

Each cell is a line of FILE, written when it is known: begun again, it goes on with what is not there. Parts run side by
side, each with a stack of its own. One embedded stack serves all cells of a part, as one environment would: what a cell
leaves behind meets the next. The nightly schedule comes every minute, from before the kill until it has begun one.

1. A job is launched. Its undisturbed run reported so many events; a moment is a tenth of them, not of the time.
2. When the run has reported as many, the victim dies by SIGKILL.
3. The run must end, and the first backup that the schedule begins after the kill must succeed.
4. Then nothing may be held, and it must have been told: a run that failed for good, by the alert channel; a part that
   died, by the stack's status.

Paces are shorter than in production: runs that vanished are looked for every 5 s, their pools are freed after 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.killed_stack import Stack, Unanswered, running_stack
from tmi_ops.errors import OpsError

REPORT = Path(__file__).resolve().parent / "kills.md"
JOBS = {"backup": "logical_backup", "drill": "recovery_drill", "prune": "retention"}
SERVICES = {
    "daemon": "dagster-daemon",
    "webserver": "dagster-webserver",
    "code server": "dagster-code",
    "records": "dagster-postgres",
}
VICTIMS = ("daemon", "worker", "webserver", "code server", "records")
MOMENTS = 10
PATIENCE_S = 300.0
# Dagster says a moment after the failure whether it will repeat the run.
FINAL_AFTER_S = 8.0
_ENDS = {"PIPELINE_SUCCESS", "PIPELINE_FAILURE", "PIPELINE_CANCELED"}
_OVER = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True)
class Cell:
    """One kill and what came of it.

    `at`: the last event that the run had reported. `told`: how; empty where nobody was told. `recovered_s`: until the
    next scheduled backup had succeeded, in seconds.
    """

    victim: str
    job: str
    moment: int
    at: str
    run: str
    told: str
    held: str
    next_backup: str
    recovered_s: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.victim, self.job, self.moment

    @property
    def good(self) -> bool:
        return bool(self.told) and not self.held and self.next_backup == "SUCCESS" and self.run != "never over"


def await_(question: Callable[[], Any], patience_s: float = PATIENCE_S, pause_s: float = 0.5) -> Any:
    """The first answer that is true; None after all patience. A part that is away is asked again."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(Unanswered, OSError, psycopg.Error, OpsError, StopIteration, IndexError, KeyError):
            if answer := question():
                return answer
        time.sleep(pause_s)
    return None


def over(stack: Stack, run_id: str) -> dict[str, Any] | None:
    """The last run of the chain of repetitions, once nothing more will come of it."""
    found = stack.run(run_id)
    if found["status"] == "SUCCESS":
        return found
    is_final = found["status"] in _OVER and time.time() - (found["endTime"] or 0) > FINAL_AFTER_S
    return found if is_final and found["tags"].get("dagster/will_retry") != "true" else None


def try_cell(stack: Stack, victim: str, job: str, moment: int, events: int) -> Cell:
    """Kill once, and see what becomes of it.

    Args:
        events: how many an undisturbed run of the job reports.
    """
    await_(lambda: not stack.at_work())
    await_(lambda: stack.schedule_runs(wanted=True))
    restarts = {one.name: one.restarts for one in stack.state.services}
    run_id = await_(lambda: stack.launch(JOBS[job]))
    at = await_moment(stack, run_id, round(events * (moment + 0.5) / MOMENTS))
    since, began = time.time(), time.monotonic()
    if not kill(stack, victim, run_id):
        at = f"{at}, nothing left to kill"
    ended = await_(lambda: over(stack, run_id))
    following = await_(lambda: stack.scheduled_since(since), 150)
    await_(lambda: stack.schedule_runs(wanted=False))
    backed_up = await_(lambda: over(stack, following)) if following else None
    recovered = time.monotonic() - began
    told = _told(stack, victim, ended, restarts, since)
    await_(lambda: not held(stack), 60)
    return Cell(
        victim,
        job,
        moment,
        at,
        f"{ended['status']} ({ended['length']})" if ended else "never over",
        told,
        held(stack),
        backed_up["status"] if backed_up else "not over" if following else "not scheduled",
        round(recovered, 1),
    )


def await_moment(stack: Stack, run_id: str, events: int) -> str:
    """Wait until the run has reported so many events, or is over; the last of them."""

    def reached() -> str:
        types = stack.events(run_id)
        return types[-1] if len(types) >= events or _ENDS & set(types) else ""

    return str(await_(reached, pause_s=0.02) or "nothing")


def _is_over(stack: Stack, run_id: str) -> bool:
    return bool(_ENDS & set(stack.events(run_id)))


def kill(stack: Stack, victim: str, run_id: str) -> int:
    """SIGKILL; how many died. A run's process comes a moment after the run, and is waited for."""
    if victim == "worker":
        found = [await_(lambda: stack.worker_of(run_id) or (_is_over(stack, run_id) and -1), 120, 0.05) or -1]
        found = [pid for pid in found if pid > 0]
    elif victim == "records":
        found = [stack.postmaster_of_records()]
    else:
        found = [stack.pid_of(SERVICES[victim])]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def _told(stack: Stack, victim: str, ended: dict[str, Any] | None, restarts: Mapping[str, int], since: float) -> str:
    """Where a person reads of it; each of what must be told, or an empty text where one of them was not."""
    ways = []
    if service := SERVICES.get(victim):
        if not await_(lambda: _restarts(stack, service) > restarts[service], 90):
            return ""
        ways.append("restart in the status")
    if ended is None:
        return ""
    if ended["status"] == "FAILURE":
        if not await_(lambda: any(ended["jobName"] in said for when, said in stack.heard if when >= since), 120):
            return ""
        ways.append("alert")
    elif ended["length"] > 1:
        ways.append("failed run, repeated")
    elif victim == "worker":
        ways.append("the run was over, which its record says")
    return ", ".join(ways)


def _restarts(stack: Stack, service: str) -> int:
    return next(one.restarts for one in stack.state.services if one.name == service)


def held(stack: Stack) -> str:
    """What is held by nothing at work: pools, locks on the source, receivers, scratch servers, runs that never end."""
    with stack.records() as records, stack.source() as source:
        questions = (
            (
                records,
                "runs not over",
                "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED') AND NOT"
                # A launch that was cut off leaves this; Dagster's monitor fails it after its start_timeout.
                " (status = 'NOT_STARTED' AND create_timestamp > now() AT TIME ZONE 'UTC' - interval '330 s')",
            ),
            (records, "places in pools", "SELECT count(*) FROM concurrency_slots WHERE run_id IS NOT NULL"),
            (records, "steps waiting for a pool", "SELECT count(*) FROM pending_steps"),
            (source, "locks on the source", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            (source, "receivers", "SELECT count(*) FROM pg_stat_replication"),
            (source, "temporary slots", "SELECT count(*) FROM pg_replication_slots WHERE temporary"),
        )
        counted = [(name, int(where.execute(query).fetchone()[0])) for where, name, query in questions]  # type: ignore[index]
    counted.append(("scratch servers", len(stack.scratch_servers())))
    return ", ".join(f"{count} {name}" for name, count in counted if count)


def undisturbed(stack: Stack, job: str) -> int:
    """How many events a run of the job reports when nobody dies."""
    run_id = await_(lambda: stack.launch(JOBS[job]))
    run = await_(lambda: over(stack, run_id))
    if not run or run["status"] != "SUCCESS":
        raise SystemExit(f"{job} does not succeed undisturbed: {run}")
    return len(stack.events(run_id))


def main(arguments: list[str]) -> None:
    """Prints each cell as it is known, and keeps it in the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--moments", default=",".join(map(str, range(MOMENTS))))
    parser.add_argument("--write", action="store_true")
    how = parser.parse_args(arguments)
    if how.write:
        REPORT.write_text(_report(read_cells(how.file)))
        return
    part, parts = map(int, how.part.split("/"))
    known = {cell.key for cell in read_cells(how.file)}
    # One part after the other dies, so that none dies so often in a row that the stack gives it up.
    every = [
        (victim, job, int(moment))
        for moment in how.moments.split(",")
        for job in how.jobs.split(",")
        for victim in how.victims.split(",")
    ]
    wanted = [key for number, key in enumerate(every) if number % parts == part and key not in known]
    # So that the stack goes with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    events = read_events(how.file)
    with running_stack() as stack:
        for job in how.jobs.split(","):
            if job not in events:
                events[job] = undisturbed(stack, job)
                _keep(how.file, {"job": job, "events": events[job]})
        for victim, job, moment in wanted:
            cell = try_cell(stack, victim, job, moment, events[job])
            _keep(how.file, asdict(cell))
            print(time.strftime("%H:%M:%S"), "ok  " if cell.good else "BAD ", cell, flush=True)


def read_cells(file: Path) -> list[Cell]:
    """The newest of each key."""
    cells = [Cell(**one) for one in _lines(file) if "victim" in one]
    return list({cell.key: cell for cell in cells}.values())


def read_events(file: Path) -> dict[str, int]:
    """How many events an undisturbed run of each job reported."""
    return {one["job"]: one["events"] for one in _lines(file) if "events" in one}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _keep(file: Path, line: Mapping[str, object]) -> None:
    with file.open("a") as kept:
        kept.write(json.dumps(line) + "\n")


def _report(cells: Iterable[Cell]) -> str:
    known = sorted(cells, key=lambda one: one.key)
    bad = [cell for cell in known if not cell.good]
    slowest = max((cell.recovered_s for cell in known), default=0.0)
    rows = [
        f"| {one.victim} | {one.job} | {one.moment} | {one.at} | {one.run} | {one.told} | {one.held} "
        f"| {one.next_backup} | {one.recovered_s:.0f} |"
        for one in known
    ]
    return "\n".join(
        [
            "# Kills",
            "",
            f"Made by `python -m benchmarks.kills FILE --write`, last on {date.today():%Y-%m-%d}: SIGKILL to one part",
            f"at each tenth of the events of a run. {len(known)} of {len(VICTIMS) * len(JOBS) * MOMENTS} cells were",
            f"run, {len(bad)} of them ended badly; the next scheduled backup had succeeded after {slowest:.0f} s at",
            "most. `at`: the last event before the kill. `run`: how the run that was hit ended, and how many runs it",
            "took. `held`: what was still held a minute after all was over. `s`: until the next scheduled backup had",
            "succeeded, on two busy cores.",
            "",
            "| killed | during | tenth | at | run | told | held | next backup | s |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
