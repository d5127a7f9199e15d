"""A day's worth of WAL with a shadow beside it: at the end it holds, row by row, what the source holds.

    python -m benchmarks.wal.shadow_soak --megabytes 2400

A day is taken to be 2.4 GB of WAL: a segment every ten minutes, as an RPO of ten minutes makes it; that is 144 of them.
It is written as fast as the machine can, and in between the source is promoted and crashes, receiver and shadow are
killed, base backups are taken and old ones pruned. The store keeps WAL as long as its newest base backup wants it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import psycopg

from benchmarks.servers import servers
from benchmarks.wal.soak import PARAMETERS, Lab, await_level, end_receiver, kill_receiver, promote, start, stop_server
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.settings import PostgresSettings, load_settings
from tmi_ops.shadow.place import LocalState, read_local
from tmi_ops_tests.tcp_relay import TcpRelay

MB = 1_000_000
PATIENCE_S = 300.0
NOISE = (
    "CREATE UNLOGGED TABLE noise AS SELECT g AS id, (SELECT string_agg(md5(random()::text || g || i), '') "
    "FROM generate_series(1, 60) i) AS noise FROM generate_series(1, 4000) g"
)
WRITE = "INSERT INTO ballast (noise) SELECT noise FROM noise"
CHANGE = "UPDATE ballast SET noise = noise || '!' WHERE id %% 97 = %s"
DROP = "DELETE FROM ballast WHERE id %% 89 = %s"
ALL_ROWS = "COPY (SELECT * FROM ballast ORDER BY id) TO STDOUT"


@dataclass
class Beside:
    """The laboratory, and the shadow in it."""

    lab: Lab
    shadow: subprocess.Popen[bytes] | None = None
    kinds: Counter[str] = field(default_factory=Counter)

    def start_shadow(self) -> None:
        output = (self.lab.directory / "shadow.log").open("ab")
        argv = [sys.executable, "-m", "tmi_ops.cli.main", "shadow", "run", "--quiet"]
        self.shadow = subprocess.Popen(
            argv, env=self.lab.variables(), stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )

    def end_shadow(self, how: signal.Signals) -> None:
        if self.shadow is not None:
            self.shadow.send_signal(how)
            self.shadow.wait(PATIENCE_S)

    def restart_shadow(self, how: signal.Signals) -> None:
        self.end_shadow(how)
        self.start_shadow()

    def state(self) -> LocalState | None:
        """What the shadow says; its troubles are counted in passing."""
        found = read_local(load_settings(self.lab.variables()))
        if found is not None:
            self.kinds.update({one.kind for one in found.report.troubles})
        return found

    def until_replayed(self, lsn: int) -> float:
        """Wait until everything before `lsn` is replayed; how many seconds that took."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE_S:
            self.lab.keep_receiver()
            if self.shadow is None or self.shadow.poll() is not None:
                raise SystemExit(f"the shadow ended: {(self.lab.directory / 'shadow.log').read_text()[-2000:]}")
            found = self.state()
            if found and found.reachable and parse_lsn(found.report.replayed_lsn or "0/0") >= lsn:
                return time.monotonic() - begun
            time.sleep(0.2)
        raise SystemExit(f"the shadow did not come to {lsn:X}: {self.state()}")


DEEDS: tuple[tuple[str, Callable[[Beside], object]], ...] = (
    ("shadow killed", lambda one: one.restart_shadow(signal.SIGKILL)),
    ("promoted", lambda one: promote(one.lab)),
    ("base backup", lambda one: one.lab.ops("backup", "base", "--quiet")),
    ("receiver killed", lambda one: kill_receiver(one.lab)),
    ("server crashed", lambda one: one.lab.restart(signal.SIGQUIT)),
    ("prune", lambda one: one.lab.ops("prune", "--yes", fails=(1,))),
    ("shadow ended", lambda one: one.restart_shadow(signal.SIGTERM)),
    ("server stopped fast", lambda one: one.lab.restart(signal.SIGINT)),
    ("incremental", lambda one: one.lab.ops("backup", "base", "--incremental", "--quiet")),
)


@click.command()
@click.option("--megabytes", type=click.IntRange(50), default=2400, show_default=True, help="WAL to be written.")
@click.option("--every", type=click.IntRange(10), default=100, show_default=True, help="MB of WAL between two deeds.")
def main(megabytes: int, every: int) -> None:
    """Write a day's WAL with a shadow beside, and compare."""
    with tempfile.TemporaryDirectory(prefix="shadow-soak-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with laboratory(directory) as one:
            soak(one, megabytes, every)


@contextmanager
def laboratory(directory: Path) -> Iterator[Beside]:
    with servers(directory, parameters=PARAMETERS) as made:
        port = int((made.store.endpoint_url or "").rpartition(":")[2])
        stop_server(made.data)
        address = made.postgres.model_copy(update={"database": "postgres"})
        cluster = start(made, made.data, address, "asynchronous")
        lab = Lab(made, directory, cluster, "asynchronous", TcpRelay(address.port), TcpRelay(port))
        one = Beside(lab)
        try:
            yield one
        finally:
            one.end_shadow(signal.SIGTERM)
            if lab.receiver is not None:
                lab.receiver.kill()
            lab.cluster.stop()


def soak(one: Beside, megabytes: int, every: int) -> None:
    lab = one.lab
    lab.sql(
        "CREATE TABLE ballast (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, noise text)",
        "ALTER TABLE ballast ALTER noise SET STORAGE EXTERNAL",
    )
    lab.ops("backup", "base", "--quiet")
    await_level(lab)
    one.start_shadow()
    begun, done = time.monotonic(), Counter[str]()
    written, first = 0, flushed(lab)
    actions = itertools.cycle(DEEDS)
    for number in itertools.count():
        before = flushed(lab)
        lab.sql("DROP TABLE IF EXISTS noise", NOISE)  # unlogged: a crash empties it
        while flushed(lab) - before < every * MB:
            lab.keep_receiver()
            lab.sql(WRITE)
            _change(lab, number)
        written = flushed(lab) - first
        if written >= megabytes * MB:
            break
        name, action = next(actions)
        action(one)
        done[name] += 1
        lab.keep_receiver()
        found = one.state()
        said = f"{found.report.state} at {found.report.replayed_lsn}" if found else "not begun"
        print(f"{written / MB:.0f} MB, {time.monotonic() - begun:.0f} s, {name}; the shadow: {said}", flush=True)
    took = time.monotonic() - begun
    await_level(lab)
    waited = one.until_replayed(flushed(lab))
    _report(one, written, took, waited, done)


def _report(one: Beside, written: int, took: float, waited: float, done: Counter[str]) -> None:
    found = one.state()
    if found is None or found.reachable is None:
        raise SystemExit("the shadow is gone")
    ours = rows(one.lab.cluster.address.model_copy(update={"database": "postgres"}))
    its = rows(found.reachable.address.model_copy(update={"database": "postgres"}))
    report = found.report
    print(
        f"{written / MB:.0f} MB of WAL in {took:.0f} s, {written / MB / took:.1f} MB/s; load average "
        f"{os.getloadavg()[0]:.1f}; level {waited:.1f} s after the last; {dict(done)}; timeline {report.timeline}; "
        f"troubles met in passing: {dict(one.kinds) or 'none'}, at the end: {[t.kind for t in report.troubles]}; "
        f"requests since its last start: {sum(report.requests.values())}"
    )
    end_receiver(one.lab)
    if ours != its:
        raise SystemExit(f"it differs: {ours} in the source, {its} in the shadow")
    print(f"equal row by row: {ours[0]} rows, SHA-256 {ours[1][:16]}")


def _change(lab: Lab, number: int) -> None:
    address = lab.cluster.address.model_copy(update={"database": "postgres"})
    with psycopg.connect(**connection_parameters(address), autocommit=True) as connection:
        connection.execute(CHANGE, (number % 97,))
        connection.execute(DROP, (number % 89,))


def flushed(lab: Lab) -> int:
    with suppress(IndexError):
        return parse_lsn(str(lab.sql("SELECT pg_current_wal_flush_lsn()")[0][0]))
    raise SystemExit("the server says nothing")


def rows(address: PostgresSettings) -> tuple[int, str]:
    """How many rows there are, and the SHA-256 of all of them in their order."""
    digest, count = hashlib.sha256(), 0
    with connect(address) as connection, connection.cursor().copy(ALL_ROWS) as copied:
        for block in copied:
            data = bytes(block)
            digest.update(data)
            count += data.count(b"\n")
    return count, digest.hexdigest()


if __name__ == "__main__":
    main()
