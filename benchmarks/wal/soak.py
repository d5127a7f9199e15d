"""A soak of WAL archiving in the manner of Jepsen: writers log outside what was acknowledged, a nemesis breaks things,
and at random moments the server is taken for lost: what the store alone gives back is compared with that log.

    python -m benchmarks.wal.soak --faults 1000 --mode synchronous
    python -m benchmarks.wal.soak --faults 1000 --mode asynchronous

In synchronous mode no acknowledged commit may be missing, whenever the server is lost. In asynchronous mode each
writer's rows must be an exact prefix of what it wrote, and after a catch-up nothing may be missing. `wal gaps --deep`
must find the archive whole every time, and nothing may hang.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.servers import Servers, servers
from tmi_ops.postgres.cluster import RunningCluster, free_port, start_cluster
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.tcp_relay import TcpRelay

WRITERS = 3
LONGEST_S = 180.0
BALLAST = "INSERT INTO ballast SELECT repeat(md5(g::text), 30) FROM generate_series(1, 4000) g"
PARAMETERS = {
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "fsync": "off",
    "summarize_wal": "on",
    "autovacuum": "off",
}


@dataclass
class Writer:
    """Counts up in its own rows. `acknowledged`: the number whose commit was confirmed."""

    number: int
    address: PostgresSettings
    stop: threading.Event
    acknowledged: int = 0

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(psycopg.Error):
                self._write()
            time.sleep(0.05)

    def _write(self) -> None:
        with psycopg.connect(**connection_parameters(self.address), autocommit=True) as connection:
            found = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM log WHERE writer = %s", (self.number,)
            ).fetchone()
            following = (found[0] if found else 0) + 1
            while not self.stop.is_set():
                connection.execute(
                    "INSERT INTO log VALUES (%s, %s, repeat(md5(random()::text), 20))", (self.number, following)
                )
                self.acknowledged = max(self.acknowledged, following)
                following += 1
                time.sleep(random.uniform(0, 0.02))  # noqa: S311


@dataclass
class Lab:
    """The servers, the relays between them and us, and the receiver."""

    made: Servers
    directory: Path
    cluster: RunningCluster
    mode: str
    postgres_relay: TcpRelay
    s3_relay: TcpRelay
    receiver: subprocess.Popen[bytes] | None = None
    log: dict[str, int] = field(default_factory=Counter)

    def variables(self) -> dict[str, str]:
        own = self.cluster.address
        store = self.made.store
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TMI_", "POSTGRES_"))},
            "TMI_ENV": "development",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.postgres_relay.port),
            "POSTGRES_USER": own.user,
            "POSTGRES_PASSWORD": own.password.get_secret_value() if own.password else "",
            "POSTGRES_DB": "postgres",
            "POSTGRES_SSLMODE": "disable",
            "TMI_OPS_S3_BUCKET": store.bucket or "",
            "TMI_OPS_S3_PREFIX": self.mode,
            "TMI_OPS_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.s3_relay.port}",
            "TMI_OPS_S3_ACCESS_KEY_ID": store.access_key_id.get_secret_value() if store.access_key_id else "",
            "TMI_OPS_S3_SECRET_ACCESS_KEY": (
                store.secret_access_key.get_secret_value() if store.secret_access_key else ""
            ),
            "TMI_OPS_HOME": str(self.directory / "home"),
            "TMI_OPS_AUTOMATION": "off",
            "COLUMNS": "160",
            "PYTHONFAULTHANDLER": "1",
        }

    def ops(self, *words: str, fails: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command; an exit code that is not 0 or among `fails` ends the soak, and so does one that hangs."""
        argv = [sys.executable, "-m", "tmi_ops.cli.main", *words]
        done = subprocess.run(
            argv,
            env=self.variables(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
        if done.returncode not in (0, *fails):
            raise SystemExit(
                f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def start_receiver(self) -> None:
        argv = [
            sys.executable,
            "-m",
            "tmi_ops.cli.main",
            "wal",
            "stream",
            "--quiet",
            "--wait",
            "--partial-every",
            "0.5",
        ]
        output = (self.directory / "receiver.log").open("ab")
        self.receiver = subprocess.Popen(
            argv, env=self.variables(), cwd=self.directory, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )

    def keep_receiver(self) -> None:
        """A service manager starts it again whenever it ended."""
        if self.receiver is None or self.receiver.poll() is not None:
            self.log["receiver started"] += 1
            self.start_receiver()

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        address = self.cluster.address.model_copy(update={"database": "postgres"})
        with psycopg.connect(**connection_parameters(address), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = local")
            rows: list[tuple[object, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def restart(self, how: signal.Signals) -> None:
        process = self.cluster.process
        process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(60)
        self.start()

    def start(self) -> None:
        self.cluster = start(self.made, self.cluster.directory, self.cluster.address, self.mode)


def kill_receiver(lab: Lab) -> None:
    if lab.receiver is not None:
        lab.receiver.kill()
        lab.receiver.wait()


def freeze_receiver(lab: Lab) -> None:
    if lab.receiver is not None and lab.receiver.poll() is None:
        lab.receiver.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.1, 1.5))  # noqa: S311
        lab.receiver.send_signal(signal.SIGCONT)


def end_receiver(lab: Lab) -> None:
    """Cleanly; one that hangs says where."""
    if lab.receiver is None:
        return
    lab.receiver.terminate()
    try:
        lab.receiver.wait(60)
    except subprocess.TimeoutExpired:
        lab.receiver.send_signal(signal.SIGABRT)
        lab.receiver.wait(10)
        said = (lab.directory / "receiver.log").read_text(errors="replace")[-6000:]
        raise SystemExit(f"the receiver did not end:\n{said}") from None


def _cut(relay: TcpRelay) -> None:
    relay.cut()
    time.sleep(random.uniform(0, 0.8))  # noqa: S311
    relay.mend()


def promote(lab: Lab) -> None:
    """A timeline of its own, as after a failover."""
    process = lab.cluster.process
    process.send_signal(signal.SIGINT)
    process.wait(90)
    mark = lab.cluster.directory / "standby.signal"
    mark.touch()
    owner = lab.cluster.directory.stat()
    os.chown(mark, owner.st_uid, owner.st_gid)
    lab.start()
    lab.sql("SELECT pg_promote()")


def second_receiver(lab: Lab) -> None:
    """Refused while the first is at work; takes over where it is dead."""
    lab.ops("wal", "stream", "--catch-up", "--quiet", fails=(1, 2))


def drill(lab: Lab) -> None:
    """A random moment of the window is recovered to while everything goes on; the copy must be sound.

    An objective may be missed on a busy machine. What cannot be recovered to for a moment only, behind a store that was
    cut off, is refused (exit code 2) and counted.
    """
    done = lab.ops("drill", "--json", "--quiet", fails=(1, 2))
    if done.returncode == 2:
        lab.log["drill refused"] += 1
        print(f"drill refused: {' '.join(done.stderr.split())[:300]}", flush=True)
        return
    checks = {check["name"]: check["outcome"] for check in json.loads(done.stdout)["checks"]}
    lab.log["drill"] += 1
    amiss = [name for name, outcome in checks.items() if outcome == "failed" and name not in ("rto", "rpo")]
    # The writers' table is none of TMI's, whose schema the living database lacks as well.
    if amiss or checks.get("amcheck") != "passed":
        raise SystemExit(f"a drill failed: {checks}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}")


def slow_store(lab: Lab) -> None:
    """Each piece of 64 KiB waits: a segment takes seconds, so that segments queue up."""
    lab.s3_relay.delay = random.uniform(0.01, 0.1)  # noqa: S311
    with suppress(psycopg.Error):
        lab.sql(BALLAST)
    time.sleep(random.uniform(1, 4))  # noqa: S311
    lab.s3_relay.delay = 0.0


FAULTS: dict[str, tuple[float, Callable[[Lab], object]]] = {
    "receiver killed": (10, kill_receiver),
    "receiver frozen": (10, freeze_receiver),
    "receiver ended": (5, end_receiver),
    "server cut off": (12, lambda lab: _cut(lab.postgres_relay)),
    "store cut off": (12, lambda lab: _cut(lab.s3_relay)),
    "segment switched": (10, lambda lab: lab.sql("SELECT pg_switch_wal()")),
    "checkpoint": (8, lambda lab: lab.sql("CHECKPOINT")),
    "server stopped fast": (4, lambda lab: lab.restart(signal.SIGINT)),
    "server crashed": (4, lambda lab: lab.restart(signal.SIGQUIT)),
    "promoted": (1, promote),
    "second receiver": (1, second_receiver),
    "base backup": (0.7, lambda lab: lab.ops("backup", "base", "--quiet", fails=(2,))),
    "incremental": (0.7, lambda lab: lab.ops("backup", "base", "--incremental", "--quiet", fails=(2,))),
    "prune": (0.4, lambda lab: lab.ops("prune", "--yes", fails=(1, 2))),
    "load": (4, lambda lab: lab.sql(BALLAST)),
    "store slow": (6, slow_store),
    "drill": (0.8, drill),
}


def verify(lab: Lab, writers: list[Writer], *, caught_up: bool) -> None:
    """Take the server for lost, restore from the store alone, and compare."""
    before = {writer.number: writer.acknowledged for writer in writers}
    if caught_up:
        await_level(lab)
    lab.ops("wal", "gaps", "--deep", "--quiet")
    target = lab.directory / "restored"
    shutil.rmtree(target, ignore_errors=True)
    lab.ops("restore", "--latest", "--into", str(target), "--quiet")
    after = {writer.number: writer.acknowledged for writer in writers}
    rows = _rows_of(lab, target)
    for writer in writers:
        found = rows.get(writer.number, (0, 0))
        if found[0] != found[1]:
            raise SystemExit(f"writer {writer.number}: {found[0]} rows up to number {found[1]}: not a prefix")
        if (caught_up or lab.mode == "synchronous") and found[1] < before[writer.number]:
            raise SystemExit(f"writer {writer.number}: {before[writer.number]} acknowledged, {found[1]} restored")
        if found[1] > after[writer.number] + 1:
            raise SystemExit(f"writer {writer.number}: {found[1]} restored, of {after[writer.number]} ever written")
    shutil.rmtree(target, ignore_errors=True)


def await_level(lab: Lab) -> None:
    deadline = time.monotonic() + LONGEST_S
    wanted = parse_lsn(str(lab.sql("SELECT pg_current_wal_flush_lsn()")[0][0]))
    while time.monotonic() < deadline:
        lab.keep_receiver()
        slots = lab.sql("SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name LIKE 'tmi_ops%'")
        if any(row[0] and parse_lsn(str(row[0])) >= wanted for row in slots):
            return
        time.sleep(0.2)
    raise SystemExit("the receiver did not come level")


def _rows_of(lab: Lab, data: Path) -> dict[int, tuple[int, int]]:
    """Of a restored cluster: each writer's number of rows, and its highest one."""
    address = lab.cluster.address.model_copy(update={"port": free_port(), "database": "postgres"})
    copy = start(lab.made, data, address, "asynchronous")
    try:
        with psycopg.connect(**connection_parameters(address)) as connection:
            found = connection.execute("SELECT writer, count(*), max(seq) FROM log GROUP BY writer").fetchall()
    finally:
        copy.stop()
    return {writer: (count, highest) for writer, count, highest in found}


def soak(mode: str, faults: int, verify_every: int, seed: int) -> None:
    random.seed(seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with servers(directory, parameters=PARAMETERS) as made:
            port = int((made.store.endpoint_url or "").rpartition(":")[2])
            stop_server(made.data)
            address = made.postgres.model_copy(update={"database": "postgres"})
            cluster = start(made, made.data, address, mode)
            lab = Lab(made, directory, cluster, mode, TcpRelay(address.port), TcpRelay(port))
            try:
                _soak(lab, faults, verify_every)
            finally:
                if lab.receiver is not None:
                    lab.receiver.kill()
                lab.cluster.stop()


def stop_server(data: Path) -> None:
    """The one that the block began; ours, which is restarted at will, takes its place."""
    os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGINT)
    while (data / "postmaster.pid").exists():
        time.sleep(0.05)


def start(made: Servers, data: Path, address: PostgresSettings, mode: str) -> RunningCluster:
    names = "tmi_ops" if mode == "synchronous" else ""
    identity = server_identity(made.programs.path("postgres"), data.parent)
    parameters = {**PARAMETERS, "synchronous_standby_names": names}
    return start_cluster(made.programs, data, identity, address, parameters=parameters, log=data.parent / "server.log")


def _soak(lab: Lab, faults: int, verify_every: int) -> None:
    lab.sql(
        "CREATE TABLE log (writer int, seq int, filling text, PRIMARY KEY (writer, seq))",
        "CREATE TABLE ballast (x text)",
    )
    lab.ops("backup", "base", "--quiet")
    await_level(lab)  # from here on there is a slot
    stop = threading.Event()
    writers = [
        Writer(number, lab.cluster.address.model_copy(update={"database": "postgres"}), stop)
        for number in range(WRITERS)
    ]
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    began, counted = time.monotonic(), Counter[str]()
    names, weights = list(FAULTS), [weight for weight, _ in FAULTS.values()]
    for number in range(1, faults + 1):
        lab.keep_receiver()
        time.sleep(random.uniform(0, 0.6))  # noqa: S311
        name = random.choices(names, weights)[0]  # noqa: S311
        FAULTS[name][1](lab)
        counted[name] += 1
        if number % verify_every == 0:
            lab.keep_receiver()
            verify(lab, writers, caught_up=random.random() < 0.4)  # noqa: S311
            total = sum(writer.acknowledged for writer in writers)
            print(f"{number} faults, {total} commits, {time.monotonic() - began:.0f} s: as it must be", flush=True)
    verify(lab, writers, caught_up=True)
    stop.set()
    end_receiver(lab)
    total = sum(writer.acknowledged for writer in writers)
    print(
        f"{lab.mode}: {faults} faults, {total} commits in {time.monotonic() - began:.0f} s; {dict(counted)}; "
        f"{dict(lab.log)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--verify-every", type=int, default=50)
    parser.add_argument("--mode", choices=("synchronous", "asynchronous"), default="synchronous")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    soak(wanted.mode, wanted.faults, wanted.verify_every, wanted.seed)


if __name__ == "__main__":
    main()
