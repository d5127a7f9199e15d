"""The steps that put a recovered cluster into service, for every runbook that makes one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tmi_ops.drill.copy import running_cluster
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.cluster import LOOPBACK
from tmi_ops.postgres.connections import connect
from tmi_ops.runbooks.application import VARIABLES, read_application, run_hook
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Fact, Step
from tmi_ops.runbooks.serving.cluster import (
    application_role,
    new_password,
    require_login,
    set_password,
    socket_directory,
    start_server,
    stop_server,
    write_configuration,
)
from tmi_ops.runbooks.serving.configuration import Listening
from tmi_ops.runbooks.serving.connection import (
    SecretManifest,
    connection_variables,
    read_connection,
    write_env_file,
    write_secret,
)
from tmi_ops.runbooks.steps.fence import GateBefore
from tmi_ops.runbooks.steps.place import place_of, running_server, tidy
from tmi_ops.runbooks.steps.recover import RecoveredCluster, cluster_programs, request_of
from tmi_ops.settings import PostgresSettings

OWN_FILE = "connection.env"


class ServeRequest(Fact):
    """Where the server listens, and how the application gets its connection.

    Args:
        host: host name clients use to connect.
        allowed: networks (CIDR) that may connect with a password, in addition to this machine.
        role: the application's; None: the declared one, or the database's owner.
        env_file, secret_file: files to write; None: do not write it.
    """

    port: int
    addresses: str = "localhost"
    host: str = LOOPBACK
    allowed: tuple[str, ...] = ()
    role: str | None = None
    env_file: str | None = None
    secret_file: str | None = None
    secret_name: str = "tmi-database"  # noqa: S105 - a Kubernetes object's
    secret_namespace: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for file in (self.env_file, self.secret_file) if file is not None)


def serve_steps(request: ServeRequest, directory: str, *, hook: bool) -> tuple[Step, ...]:
    told = [*request.files, *(["the connect hook"] if hook else [])]
    where = " and ".join(told) or f"the run's own {OWN_FILE}"
    return (
        Step(
            name="provision",
            does=f"configure the cluster for this machine (port {request.port}, {request.addresses}, archiving off) "
            "and set a password for the application's role",
        ),
        Step(name="serve", does=f"start its server in {directory} and log in as the application", way_back="stop it"),
        Step(
            name="connect",
            does=f"write the new connection strings to {where}",
            effect="irreversible",
            way_back="restore the files as they were",
        ),
    )


def serve_notes(request: ServeRequest) -> tuple[str, ...]:
    """Notes on the new server for the plan."""
    if request.addresses not in ("localhost", LOOPBACK) and request.host == LOOPBACK:
        return (
            f"The connection strings will use {LOOPBACK}. If clients connect from other machines, set --host to the "
            "name of this one.",
        )
    return ()


def served_afterwards() -> tuple[str, ...]:
    """What a person must do for the new server."""
    return (
        "Receive the new server's WAL (`tmi-ops wal stream`) and take a base backup of it (`tmi-ops backup base`). "
        "Until then, nothing written to it can be recovered.",
        "Install the new server's certificates.",
    )


def serve_request(work: Work) -> ServeRequest:
    return ServeRequest.model_validate(work.journal.plan.requests["serve"])


def _provision(work: Work) -> None:
    request, recover, cluster = serve_request(work), request_of(work), work.known(RecoveredCluster)
    destination, programs = tidy(recover.place), cluster_programs(work)
    own = work.directory / OWN_FILE
    with (
        running_cluster(destination, cluster.role, programs, {"fsync": "on"}) as address,
        connect(address) as connection,
    ):
        role = application_role(connection, recover.database, request.role, programs.major)
        before = read_connection(own)
        password = (before.password if before else None) or _known_password(work, role) or new_password()
        postgres = PostgresSettings(
            host=request.host,
            port=request.port,
            user=role,
            password=password,
            database=recover.database,
            sslmode="prefer",
        )
        # Write the file first: a password that is set but not stored would shut the application out.
        write_env_file(own, connection_variables(postgres))
        set_password(connection, role, password)
        _let_in(connection, work.journal.known(GateBefore))
    sockets = socket_directory(destination.directory)
    listening = Listening(request.port, request.addresses, request.allowed, sockets)
    left_out = write_configuration(destination.directory, programs, listening, cluster.role)
    work.say(f"The application's role is {role}; its password is only in {own}.")
    if left_out:
        work.say(
            f"Settings of the source that were not carried over: {', '.join(left_out)}. Its files are kept as *.source."
        )


def _let_in(connection: psycopg.Connection[Any], before: GateBefore | None) -> None:
    """The fence on the old server is part of the replayed WAL, so lift it here."""
    for name, login in (before.roles if before else {}).items():
        if login:
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(name)))


def _known_password(work: Work, role: str) -> SecretStr | None:
    postgres = work.settings.postgres
    return postgres.password if postgres.user == role else None


def _serve(work: Work) -> None:
    recover = request_of(work)
    destination, programs = place_of(recover.place), cluster_programs(work)
    start_server(destination.directory, programs, _log(destination.directory))
    postgres = _connection(work)
    tables = require_login(postgres)
    detail = (
        f"{postgres.user} can log in at {postgres.host}:{postgres.port} and sees {tables} tables in "
        f"{postgres.database}."
    )
    work.answer(Answer(title="Login as the application", outcome="passed", detail=detail))
    work.say(detail)
    owner = destination.directory.owner()
    work.leave(
        f"Configure your service manager to start the server in {destination.directory} at boot, as {owner}, who owns "
        "its files."
    )


def _stop(work: Work) -> None:
    if work.journal.known(RecoveredCluster) is not None:
        stop_server(place_of(request_of(work).place).directory, cluster_programs(work))


def _connect(work: Work) -> None:
    request, variables = serve_request(work), connection_variables(_connection(work))
    for file in request.files:
        _keep(work, Path(file))
    if request.env_file is not None:
        write_env_file(Path(request.env_file), variables)
    if request.secret_file is not None:
        write_secret(
            SecretManifest(Path(request.secret_file), request.secret_name, request.secret_namespace), variables
        )
    environment = {**variables, "TMI_OPS_RUN_ID": work.journal.run_id}
    if run_hook(read_application(work.settings.variables), "connect", environment) is not None:
        work.say(f"Ran {VARIABLES['connect']} with the new connection in its environment.")
    work.say(f"Written: {', '.join(request.files) or work.directory / OWN_FILE}.")


def _connect_back(work: Work) -> None:
    for file in map(Path, serve_request(work).files):
        kept = _kept(work, file)
        if kept.exists():
            shutil.copy2(kept, file)
        elif _absent(work, file).exists():
            file.unlink(missing_ok=True)
        else:
            work.say(f"{file} was not written on this machine; restore it where it was written.")


def _keep(work: Work, file: Path) -> None:
    """Keep the file as it was before the run; an attempt that was cut off may have done so."""
    if _kept(work, file).exists() or _absent(work, file).exists():
        return
    if file.exists():
        beside = _kept(work, file).with_suffix(".part")
        shutil.copy2(file, beside)
        beside.chmod(0o600)
        beside.rename(_kept(work, file))
    else:
        _absent(work, file).touch()


def _kept(work: Work, file: Path) -> Path:
    return work.directory / f"before-{_flat(file)}"


def _absent(work: Work, file: Path) -> Path:
    return work.directory / f"absent-{_flat(file)}"


def _flat(file: Path) -> str:
    return str(file.absolute()).strip("/").replace("/", "_")


def _connection(work: Work) -> PostgresSettings:
    postgres = read_connection(work.directory / OWN_FILE)
    if postgres is None:
        raise RecoveryError(f"{work.directory / OWN_FILE} is missing; it contained the application's new password.")
    return postgres


def _log(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.log")


def _lost_password(work: Work) -> str:
    return "" if (work.directory / OWN_FILE).exists() else f"Its {OWN_FILE} is not on this machine."


def _not_running(work: Work) -> str:
    directory = place_of(request_of(work).place).directory
    return "" if running_server(directory) is not None else f"No server runs in {directory}."


_CLUSTER = ("recover", "restore")
PROVISION = Action(_provision, needs=_CLUSTER, lost=_lost_password)
SERVE = Action(_serve, _stop, needs=("provision", *_CLUSTER), lost=_not_running)
CONNECT = Action(_connect, _connect_back, needs=("provision", "serve"))
