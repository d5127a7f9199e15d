"""One rescue in a process of its own, which loads what `tmi-ops recover rows` loads and nothing else.

Takes `Asked`, pickled, on its standard input; prints `Took` as JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.execution import execute_rescue
from tmi_ops.rescue.past import Moment, past_database
from tmi_ops.rescue.planning import plan_rescue
from tmi_ops.rescue.selection import Selection
from tmi_ops.rescue.session import both_sides
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store


@dataclass(frozen=True)
class Asked:
    """As it was just before an LSN."""

    settings: Settings
    before: str
    selection: Selection


@dataclass(frozen=True)
class Took:
    """Seconds by the wall clock for each phase; CPU seconds of this process, and of the sessions that served it in the
    past and in the living database; its peak of memory in MB."""

    rows: int
    restore: float
    plan: float
    write: float
    cpu: float
    cpu_past: float
    cpu_living: float
    memory: float

    @property
    def whole(self) -> float:
        return self.restore + self.plan + self.write


def rescue_alone(asked: Asked) -> Took:
    """Run one.

    Raises:
        CalledProcessError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rescuing"], input=pickle.dumps(asked), stdout=subprocess.PIPE, check=True
    )
    return Took(**json.loads(done.stdout))


def _rescue(asked: Asked) -> Took:
    report, settings = SilentReport(), asked.settings
    store = open_store(settings.store, settings.environment)
    moment = Moment(Target(lsn=parse_lsn(asked.before), inclusive=False))
    begun = time.monotonic()
    with past_database(settings, store, moment, report) as past:
        restored = time.monotonic()
        with both_sides(past.address, settings.postgres) as sides:
            plan = plan_rescue(sides, asked.selection, past.text, report)
            planned = time.monotonic()
            rescued = execute_rescue(sides, plan, report)
            done = time.monotonic()
            past_used, living_used = (_cpu_of(side.info.backend_pid) for side in (sides.past, sides.now))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Took(
        rows=rescued.rows,
        restore=restored - begun,
        plan=planned - restored,
        write=done - planned,
        cpu=used.ru_utime + used.ru_stime,
        cpu_past=past_used,
        cpu_living=living_used,
        memory=_peak_memory(),
    )


def _cpu_of(pid: int) -> float:
    """Of a session of a server on this machine. Source: proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_memory() -> float:
    """Not `ru_maxrss`: Linux counts in it what the process held that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3


if __name__ == "__main__":
    from benchmarks.rescuing import Asked as _Asked  # what was pickled is of this name

    request = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - of whoever runs this very program
    assert isinstance(request, _Asked)
    print(json.dumps(asdict(_rescue(request))))
