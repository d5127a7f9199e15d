"""A daemon, a code server and a UI over one tmi-ops.toml of three clusters or more: what they ask of each one's store,
and what Dagster costs.

    python -m benchmarks.fleet_live --minutes 10
    python -m benchmarks.fleet_live --minutes 60 --environments 20 --receivers

`tmi` is a TMI database with a second one beside it (`tmi/billing`), `shop` a foreign application with several schemas
and no keys (profile none), `records` this very Dagster's own records; further ones are like `shop`. Each has base, WAL
and logical backups before the daemon starts. Each speaks to the store through a relay of its own that counts requests;
the cluster's statistics count its sessions. Sensors and schedules run as they do in production.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psycopg
from pydantic import SecretStr

from benchmarks.processes import cpu_of_tree, memory_of_tree, own_cpu
from benchmarks.servers import POSTGRES_MAJOR, POSTGRES_PARAMETERS, make_database
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.programs import server_programs
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack import orchestrator
from tmi_ops.stack.bucket import ensure_bucket
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops.stack.seaweedfs import S3Credentials, start_seaweedfs
from tmi_ops.stack.service import RunningService
from tmi_ops_tests.tcp_relay import TcpRelay

BUCKET, REGION = "fleet", "us-east-1"
_OURS = (sys.executable, "-m", "tmi_ops.cli.main")
FIRST = ("tmi", "shop", "records")
CODE = "code server, with its runs"
DATABASES = {"tmi": "tmi", "shop": "shop", "records": "dagster"}
# Process ids.
Services = Mapping[str, Sequence[int]]
_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) (/[^ ]*) HTTP/1\.1\r\n")
_DEFAULTS = """[defaults]
TMI_OPS_S3_BUCKET = "{bucket}"
TMI_OPS_S3_REGION = "{region}"
TMI_OPS_S3_ACCESS_KEY_ID_ENV = "FLEET_S3_ID"
TMI_OPS_S3_SECRET_ACCESS_KEY_ENV = "FLEET_S3_SECRET"
TMI_OPS_AUTOMATION = "on"
TMI_OPS_RPO = "15m"
TMI_OPS_RTO = "30m"
"""
_ENVIRONMENT = """
[environments.{name}]
POSTGRES_HOST = "127.0.0.1"
POSTGRES_PORT = {port}
POSTGRES_USER = "{user}"
POSTGRES_PASSWORD_ENV = "FLEET_{name}"
POSTGRES_DB = "{database}"
POSTGRES_SSLMODE = "disable"
TMI_OPS_S3_ENDPOINT_URL = "http://127.0.0.1:{store}"
TMI_OPS_PROFILE = "{profile}"
"""
_SHOP = """
CREATE SCHEMA sales; CREATE SCHEMA "Stock Room";
CREATE TABLE sales.orders (id bigint, customer text, at timestamptz DEFAULT now());
CREATE TABLE "Stock Room"."Items" (name text, amount int);
INSERT INTO sales.orders SELECT n, 'customer ' || n % 100 FROM generate_series(1, 20000) n;
INSERT INTO "Stock Room"."Items" SELECT 'item ' || n, n FROM generate_series(1, 500) n;
"""


class CountingRelay(TcpRelay):
    """Counts what clients ask, by verb; a GET of a listing is a LIST, as in a bill."""

    def __init__(self, target: int) -> None:
        self.asked: Counter[str] = Counter()
        super().__init__(target)

    def handed_on(self, content: bytes) -> None:
        for verb, path in _REQUEST.findall(content):
            self.asked["LIST" if b"list-type=2" in path else verb.decode()] += 1


@dataclass(frozen=True)
class Fleet:
    """What runs. `relays` by the environment's name."""

    directory: Path
    clusters: Mapping[str, PostgresSettings]
    relays: Mapping[str, CountingRelay]
    variables: Mapping[str, str]

    @property
    def names(self) -> Sequence[str]:
        return tuple(self.clusters)

    def sessions(self, name: str) -> int:
        """How many sessions its cluster has had in all databases."""
        with psycopg.connect(**connection_parameters(self.clusters[name])) as connection:
            row = connection.execute("SELECT sum(sessions) FROM pg_stat_database").fetchone()
        return int(row[0]) if row else 0

    def run(self, *words: str) -> None:
        """A command of ours."""
        subprocess.run([*_OURS, *words], check=True, env={**os.environ, **self.variables}, cwd=self.directory)

    @contextmanager
    def receiver(self, name: str) -> Iterator[int]:
        """Its receiver, running; yields the process id."""
        argv = [*_OURS, "-e", name, "wal", "stream", "--quiet"]
        with (self.directory / f"receiver-{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, env={**os.environ, **self.variables}, cwd=self.directory, stdout=log, stderr=log
            )
            try:
                yield process.pid
            finally:
                process.terminate()
                process.wait(60)


@click.command()
@click.option("--minutes", default=10, show_default=True, help="How long the daemon ticks.")
@click.option("--environments", default=len(FIRST), show_default=True, help="How many clusters.")
@click.option("--receivers", is_flag=True, help="With a receiver for each; else runs catch up their WAL.")
@click.option("--port", default=0, help="Of the UI; 0: any.")
def main(minutes: int, environments: int, receivers: bool, port: int) -> None:
    """Start it, let it tick, and print what each environment was asked."""
    with (
        tempfile.TemporaryDirectory(prefix="tmi-ops-fleet-") as directory,
        fleet(
            Path(directory), (*FIRST, *(f"site{number:02}" for number in range(len(FIRST) + 1, environments + 1)))
        ) as found,
        dagster(found, ui_port := port or free_port()) as services,
        ExitStack() as streaming,
    ):
        ui_url = f"http://127.0.0.1:{ui_port}"
        protect(found)  # now that Dagster has made its tables
        if receivers:
            services = {
                **services,
                "receivers": [streaming.enter_context(found.receiver(name)) for name in found.names],
            }
        click.echo(f"UI at {ui_url}; its daemon ticks for {minutes} min")
        time.sleep(60)  # the first looks of all, and the runs that they begin, are no everyday
        before = {name: (found.relays[name].asked.copy(), found.sessions(name)) for name in found.names}
        spent, own, since = _cpu(services), own_cpu(*services[CODE]), time.time()
        time.sleep(60 * minutes)
        _print_cost({name: used - spent[name] for name, used in _cpu(services).items()}, services, minutes)
        click.echo(f"of it the code server itself: {own_cpu(*services[CODE]) - own:.1f} CPU s")
        _print_runs(ui_url, since)
        _print(found, before, minutes)
        _print_ticks(ui_url)


def protect(found: Fleet) -> None:
    """The first backups of each."""
    for name in found.names:
        found.run("-e", name, "wal", "stream", "--catch-up", "--quiet")
        found.run("-e", name, "backup", "base", "--quiet")
    for name in (*found.names, "tmi/billing"):
        found.run("-e", name, "backup", "logical", "--verify", "--quiet")


@contextmanager
def fleet(directory: Path, names: Sequence[str]) -> Iterator[Fleet]:
    """A cluster for each name, a store with a relay for each, and the file that names them."""
    with ExitStack() as stack:
        programs = server_programs(POSTGRES_MAJOR)
        credentials = S3Credentials("fleet", SecretStr(secrets.token_urlsafe(24)))
        ports = seaweed_ports()
        s3 = start_seaweedfs(directory / "s3", ports, credentials, directory / "s3.log")
        stack.callback(s3.stop)
        stack.callback(s3.process.kill)
        ensure_bucket(f"http://127.0.0.1:{ports.s3}", REGION, BUCKET, credentials)
        clusters, relays = {}, {}
        for name in names:
            server = throwaway_server(programs, directory / name, parameters=POSTGRES_PARAMETERS)
            clusters[name] = stack.enter_context(server).address
            relays[name] = CountingRelay(ports.s3)
            stack.callback(relays[name].close)
        _fill(clusters)
        (directory / "tmi-ops.toml").write_text(_file(clusters, relays))
        secret = credentials.secret_access_key.get_secret_value()
        passwords = {f"FLEET_{name}": one.password.get_secret_value() for name, one in clusters.items() if one.password}
        variables = {"FLEET_S3_ID": credentials.access_key_id, "FLEET_S3_SECRET": secret, **passwords}
        yield Fleet(directory, clusters, relays, variables)


def _fill(clusters: Mapping[str, PostgresSettings]) -> None:
    databases = [(name, DATABASES.get(name, "shop")) for name in clusters]
    for name, database in (*databases, ("tmi", "billing")):
        with psycopg.connect(**connection_parameters(clusters[name]), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
    make_database(clusters["tmi"].model_copy(update={"database": "tmi"}), 5_000_000)
    for name, database in (*(one for one in databases if one[1] == "shop"), ("tmi", "billing")):
        address = clusters[name].model_copy(update={"database": database})
        with psycopg.connect(**connection_parameters(address), autocommit=True) as connection:
            connection.execute(_SHOP)


def _file(clusters: Mapping[str, PostgresSettings], relays: Mapping[str, CountingRelay]) -> str:
    said = _DEFAULTS.format(bucket=BUCKET, region=REGION)
    for name, address in clusters.items():
        said += _ENVIRONMENT.format(
            name=name,
            port=address.port,
            user=address.user,
            database=DATABASES.get(name, "shop"),
            store=relays[name].port,
            profile="tmi" if name == "tmi" else "none",
        )
    return said + '\n[environments.tmi.databases.billing]\nTMI_OPS_PROFILE = "none"\n'


@contextmanager
def dagster(found: Fleet, port: int) -> Iterator[Services]:
    """Code server, webserver and daemon, as the stack starts them; yields their process ids."""
    layout = StackLayout(found.directory / "stack")
    layout.dagster_home.mkdir(parents=True)
    records = found.clusters["records"].model_copy(update={"database": DATABASES["records"]})
    assert records.password
    variables = {
        **found.variables,
        "TMI_OPS_CONFIG": str(found.directory / "tmi-ops.toml"),
        "DAGSTER_HOME": str(layout.dagster_home),
        "DAGSTER_PG_HOST": records.host,
        "DAGSTER_PG_PORT": str(records.port),
        "DAGSTER_PG_USERNAME": records.user,
        "DAGSTER_PG_PASSWORD": records.password.get_secret_value(),
        "DAGSTER_PG_DB": records.database,
    }
    os.environ.pop("TMI_ENV", None)
    code = orchestrator.prepare_dagster_home(layout)
    logs = found.directory
    with ExitStack() as stack:
        starts: tuple[Callable[[], RunningService], ...] = (
            lambda: orchestrator.start_code_server(code, variables, logs / "code.log", stopping=bool, inherit=()),
            lambda: orchestrator.start_webserver(port, variables, logs / "web.log", stopping=bool, inherit=()),
            lambda: orchestrator.start_daemon(records, variables, logs / "daemon.log", stopping=bool, inherit=()),
        )
        services = [start() for start in starts]
        for service in services:
            stack.callback(service.stop)
        yield dict(zip((CODE, "webserver", "daemon"), ([one.process.pid] for one in services), strict=True))


def _cpu(services: Services) -> Mapping[str, float]:
    return {name: sum(map(cpu_of_tree, pids)) for name, pids in services.items()}


def _print_cost(spent: Mapping[str, float], services: Services, minutes: int) -> None:
    """CPU in % of one core, with that of runs that have ended; proportional memory at the end."""
    memory = {name: sum(map(memory_of_tree, pids)) / 1e6 for name, pids in services.items()}
    rows = [(name, seconds, memory[name]) for name, seconds in spent.items()]
    for name, seconds, size in (*rows, ("in all", sum(spent.values()), sum(memory.values()))):
        click.echo(f"{name:<28} {seconds:8.1f} CPU s {100 * seconds / (60 * minutes):6.1f} % of a core {size:6.0f} MB")


def _print(found: Fleet, before: Mapping[str, tuple[Counter[str], int]], minutes: int) -> None:
    verbs = ("LIST", "GET", "HEAD", "PUT", "POST", "DELETE")
    click.echo(f"| environment | {' a minute | '.join(verbs)} a minute | sessions a minute |")
    click.echo(f"| --- |{' ---: |' * (len(verbs) + 1)}")
    for name in found.names:
        asked, sessions = before[name]
        more = found.relays[name].asked - asked
        figures = [f"{more[verb] / minutes:.1f}" for verb in verbs]
        click.echo(f"| {name} | {' | '.join(figures)} | {(found.sessions(name) - sessions) / minutes:.1f} |")


def _print_runs(ui_url: str, since: float) -> None:
    """How many runs each job had, whatever their environment."""
    begun = _asked(ui_url, _RUNS)["runsOrError"]["results"]
    jobs = Counter(one["jobName"].rsplit("__", 1)[-1] for one in begun if one["creationTime"] >= since)
    for job, count in jobs.most_common():
        click.echo(f"{count:4} runs of {job}")


def _print_ticks(ui_url: str) -> None:
    """How the daemon's looks and runs ended."""
    ticks = Counter(
        (one["name"], tick["status"]) for one in _automatic(ui_url) for tick in one["state"]["ticks"]
    )  # fmt: skip
    for (name, status), count in sorted(ticks.items()):
        click.echo(f"{name:<55} {status:<10} {count}")
    for one in _automatic(ui_url):
        for tick in one["state"]["ticks"]:
            if tick["error"]:
                click.echo(f"{one['name']}: {tick['error']['message'].strip()}")


_RUNS = "query { runsOrError(limit: 5000) { ... on Runs { results { jobName creationTime } } } }"
_AUTOMATIC = """query { repositoriesOrError { ... on RepositoryConnection { nodes {
  sensors { name state: sensorState { ticks(limit: 200) { status error { message stack } } } }
  schedules { name state: scheduleState { ticks(limit: 200) { status error { message stack } } } } } } } }"""


def _automatic(ui_url: str) -> Sequence[Mapping[str, Any]]:
    (node,) = _asked(ui_url, _AUTOMATIC)["repositoriesOrError"]["nodes"]
    return [*node["sensors"], *node["schedules"]]


def _asked(ui_url: str, query: str) -> Mapping[str, Any]:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{ui_url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own UI
        data: Mapping[str, Any] = json.load(answer)["data"]
    return data


if __name__ == "__main__":
    main()
