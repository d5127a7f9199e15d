"""The supervisor process of the stack: starts its servers, restarts those that die, stops them in order.

1. It takes the supervisor's lock, so there is one for each home, and waits for servers of a crashed predecessor.
2. Servers start in parallel; Dagster's code server starts when its database answers, then its webserver and daemon.
3. A server that dies is restarted after 1 s, then 2, 4, 8, 16 s. If one dies more often than that within
   `FORGIVE_AFTER_S`, the stack stops with an error that names the server and its log.
4. Servers stop in reverse order: Dagster first, so that running jobs can still record how they ended.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, StackError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.versions import EMBEDDED
from tmi_ops.private import write_private
from tmi_ops.progress import Report
from tmi_ops.stack.credentials import stack_credentials
from tmi_ops.stack.environment import as_env_file, settings_variables
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.lock import FileLock
from tmi_ops.stack.orchestrator import prepare_dagster_home
from tmi_ops.stack.orphans import take_servers_lock
from tmi_ops.stack.ports import StackPorts, stack_ports
from tmi_ops.stack.services import (
    Running,
    Service,
    StackContext,
    dagster_code,
    dagster_processes,
    dagster_records,
    servers,
)
from tmi_ops.stack.state import Condition, ServiceState, StackState

WATCH_INTERVAL_S = 0.5
RESTART_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
FORGIVE_AFTER_S = 300.0
LOCK_TIMEOUT_S = 1.0
PRIVATE_UMASK = 0o077


class AlreadyRunningError(StackError):
    """Another supervisor is running for this home."""

    default_code = Code.STACK_RUNNING


@dataclass
class _Supervised:
    service: Service
    running: Running | None = None
    condition: Condition = "starting"
    deaths: list[float] = field(default_factory=list)
    restarts: int = 0
    start_again_at: float | None = None


class Supervisor:
    """The stack of this process. Use as `with supervised_stack(...) as supervisor`."""

    def __init__(self, context: StackContext, stop: threading.Event) -> None:
        self.stop_requested = stop
        self._context = context
        self._started_at = datetime.now(UTC)
        self._ready = False
        self._writing = threading.Lock()
        self._groups = [[_Supervised(service) for service in group] for group in _in_starting_order(context)]

    @property
    def _every(self) -> tuple[_Supervised, ...]:
        return tuple(supervised for group in self._groups for supervised in group)

    @property
    def state(self) -> StackState:
        return StackState(
            home=self._context.layout.home,
            supervisor_pid=os.getpid(),
            started_at=self._started_at,
            with_dagster=self._context.code is not None,
            ready=self._ready,
            ports=self._context.ports,
            services=tuple(_state_of(supervised) for supervised in self._every),
        )

    def start(self, report: Report) -> StackState:
        """Start all servers; returns when they answer, or when a stop was requested.

        Raises:
            OpsError: a server did not start. Call `stop` to end the others.
        """
        self._record()
        for group in self._groups:
            if not self.stop_requested.is_set():
                self._start_side_by_side(group, report)
        self._ready = not self.stop_requested.is_set()
        self._record()
        return self.state

    def watch(self, say: Callable[[str], None]) -> None:
        """Restart servers that die; returns when a stop is requested.

        Raises:
            StackError: a server died too often.
        """
        while not self.stop_requested.wait(WATCH_INTERVAL_S):
            for supervised in self._every:
                self._look_after(supervised, say)

    def stop(self, report: Report) -> None:
        """Stop all servers cleanly, also those that are still starting."""
        for group in reversed(self._groups):
            running = [supervised for supervised in group if supervised.running is not None]
            _side_by_side(lambda supervised: _stop(supervised, report), running)

    def _start_side_by_side(self, group: Sequence[_Supervised], report: Report) -> None:
        def start(supervised: _Supervised) -> None:
            with report.phase(supervised.service.name, total=1, unit="steps"):
                supervised.running = supervised.service.start()
                supervised.condition = "running"
            self._record()

        _side_by_side(start, group)

    def _look_after(self, supervised: _Supervised, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        if supervised.running is not None and supervised.running.process.poll() is not None:
            self._note_death(supervised, now, say)
        if supervised.start_again_at is not None and now >= supervised.start_again_at:
            self._start_again(supervised, say)

    def _note_death(self, supervised: _Supervised, now: float, say: Callable[[str], None]) -> None:
        service = supervised.service
        how = "could not be restarted"
        if supervised.running is not None:
            how = f"ended unexpectedly ({_ending(supervised.running.process.returncode)})"
            supervised.running.stop()  # whatever it started, and its guard
            supervised.running = None
        supervised.deaths = [death for death in supervised.deaths if now - death < FORGIVE_AFTER_S] + [now]
        if len(supervised.deaths) > len(RESTART_DELAYS_S):
            raise StackError(
                f"{service.name} {how}, for the {len(supervised.deaths)}th time in {FORGIVE_AFTER_S / 60:.0f} minutes; "
                "the stack was stopped.",
                detail="The data of all servers is kept.",
                hint=f"read {service.log}, then run `tmi-ops up`",
                code=Code.STACK_SERVER_FAILED,
            )
        delay = RESTART_DELAYS_S[len(supervised.deaths) - 1]
        supervised.start_again_at = now + delay
        supervised.condition = "restarting"
        self._record()
        say(f"{service.name} {how}; restarting in {delay:.0f} s (log: {service.log})")

    def _start_again(self, supervised: _Supervised, say: Callable[[str], None]) -> None:
        supervised.start_again_at = None
        try:
            supervised.running = supervised.service.start()
        except OpsError:
            self._note_death(supervised, time.monotonic(), say)
            return
        supervised.restarts += 1
        supervised.condition = "running"
        self._record()
        say(f"{supervised.service.name} was restarted")

    def _record(self) -> None:
        with self._writing:
            write_private(self._context.layout.state, self.state.model_dump_json(indent=2) + "\n")


def _in_starting_order(context: StackContext) -> list[tuple[Service, ...]]:
    """Groups of servers that start in parallel; a group needs those before it."""
    if context.code is None:
        return [servers(context)]
    return [
        (*servers(context), dagster_records(context)),
        (dagster_code(context, context.code),),
        dagster_processes(context),
    ]


@contextmanager
def supervised_stack(
    home: Path, *, pg_bindir: Path | None, with_dagster: bool, stop: threading.Event
) -> Iterator[Supervisor]:
    """Hold the locks of the stack below `home` for a `with` block. The caller starts, watches and stops it.

    Raises:
        AlreadyRunningError: another supervisor is running.
        StackError: servers of a crashed stack did not end, or the stack's files are damaged.
        ProgramError: PostgreSQL is not installed.
    """
    layout = StackLayout(home)
    layout.prepare()
    supervisor_lock = _supervisor_lock(layout)
    # So that files which servers create are private.
    umask_before = os.umask(PRIVATE_UMASK)
    try:
        layout.state.unlink(missing_ok=True)
        supervisor_lock.sign(os.getpid())
        servers_lock = take_servers_lock(layout)
        servers_lock.share()
        try:
            context = _context(layout, pg_bindir, (servers_lock.descriptor,), stop.is_set, with_dagster=with_dagster)
            yield Supervisor(context, stop)
        finally:
            layout.state.unlink(missing_ok=True)
            servers_lock.close()
    finally:
        os.umask(umask_before)
        supervisor_lock.close()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event set by Ctrl-C, SIGTERM and a closed terminal. A second Ctrl-C does not interrupt the shutdown."""
    stop = threading.Event()

    def request(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _context(
    layout: StackLayout,
    pg_bindir: Path | None,
    inherit: tuple[int, ...],
    stopping: Callable[[], bool],
    *,
    with_dagster: bool,
) -> StackContext:
    programs = server_programs(EMBEDDED, pg_bindir)
    ports: StackPorts = stack_ports(layout.ports)
    credentials = stack_credentials(layout.credentials)
    write_private(layout.settings_file, as_env_file(settings_variables(ports, credentials)))
    code = prepare_dagster_home(layout) if with_dagster else None
    return StackContext(layout, programs, ports, credentials, inherit, stopping, code)


def _supervisor_lock(layout: StackLayout) -> FileLock:
    lock = FileLock(layout.supervisor_lock)
    # Readers of the state hold the lock for an instant.
    if not lock.await_exclusive(LOCK_TIMEOUT_S):
        lock.close()
        raise AlreadyRunningError(
            f"The stack in {layout.home} is already running.",
            hint="see it with `tmi-ops stack status`, or stop it with `tmi-ops down`",
        )
    return lock


def _side_by_side(action: Callable[[_Supervised], None], group: Sequence[_Supervised]) -> None:
    """Do it for all in parallel, wait for all of them, then raise the first error."""
    if not group:
        return
    with ThreadPoolExecutor(len(group)) as threads:
        futures = [threads.submit(action, supervised) for supervised in group]
    for future in futures:
        future.result()


def _stop(supervised: _Supervised, report: Report) -> None:
    if supervised.running is None:
        return
    with report.phase(f"stop {supervised.service.name}", total=1, unit="steps"):
        supervised.running.stop()
        supervised.running = None


def _state_of(supervised: _Supervised) -> ServiceState:
    service = supervised.service
    return ServiceState(
        name=service.name,
        purpose=service.purpose,
        address=service.address,
        log=service.log,
        condition=supervised.condition,
        pid=supervised.running.process.pid if supervised.running else None,
        restarts=supervised.restarts,
    )


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-returncode).name}"
    return f"exit code {returncode}"
