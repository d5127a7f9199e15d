"""Prepares the recovered cluster's configuration and roles; starts and stops its server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tmi_ops.access.declared import RoleKind, declared_access
from tmi_ops.errors import ProgramError, RecoveryError
from tmi_ops.postgres.configuration import parse_settings
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.private import write_durably
from tmi_ops.recovery.point_in_time.server import AUTO_CONF, owner_of, run_as, settings_of_source
from tmi_ops.runbooks.serving.configuration import (
    Listening,
    access_lines,
    serving_configuration,
)
from tmi_ops.runbooks.steps.place import running_server
from tmi_ops.settings import PostgresSettings

CONF, HBA, IDENT = "postgresql.conf", "pg_hba.conf", "pg_ident.conf"
OF_THE_SOURCE = ".source"
LONGEST_NAME = 107  # of a socket, directory included (source: sockaddr_un, which unix(7) describes)
LONGEST_SOCKET = LONGEST_NAME - len("/.s.PGSQL.65535")
START_WITHIN_S = 300


def write_configuration(directory: Path, programs: Programs, listening: Listening, superuser: str) -> tuple[str, ...]:
    """Configure a stopped cluster for this machine; keep the source's files next to it. May be repeated.

    Returns:
        Settings of the source that were not carried over.
    """
    identity = owner_of(directory, programs)
    source: dict[str, str] = {}
    for name in (CONF, AUTO_CONF, HBA, IDENT):
        file, kept = directory / name, directory / f"{name}{OF_THE_SOURCE}"
        if file.exists() and not kept.exists():
            file.rename(kept)
        if name in (CONF, AUTO_CONF) and kept.exists():
            source |= parse_settings(kept.read_text(errors="replace"))
    needed = settings_of_source(programs, directory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    configuration = serving_configuration(source, needed, listening, memory)
    content = {
        CONF: configuration.lines,
        AUTO_CONF: (),
        HBA: access_lines(listening, superuser),
        IDENT: (f'tmi_ops_owner "{directory.owner()}" "{superuser}"',),
    }
    for name, lines in content.items():
        write_durably(directory / name, "".join(f"{line}\n" for line in lines).encode())
        identity.take_over(directory / name)
    return configuration.left_out


def socket_directory(directory: Path) -> str:
    """The data directory, which nobody else can enter; empty if its path is too long for a socket."""
    return str(directory) if len(os.fsencode(directory)) <= LONGEST_SOCKET else ""


def application_role(
    connection: psycopg.Connection[tuple[object, ...]], database: str, wanted: str | None, major: int
) -> str:
    """The application's role: the named one, else the declared one, else the database's owner.

    Raises:
        RecoveryError: the named role does not exist.
    """
    roles = {str(name) for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
    if wanted is not None:
        if wanted not in roles:
            raise RecoveryError(f"The cluster has no role {wanted}.", hint="correct TMI_OPS_APP_ROLE")
        return wanted
    declared = declared_access(database, major).of(RoleKind.APP).name
    if declared in roles:
        return declared
    row = connection.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (database,)
    ).fetchone()
    if row is None:
        raise RecoveryError(f"The cluster has no database {database}.", hint="set POSTGRES_DB to its name")
    return str(row[0])


def set_password(connection: psycopg.Connection[tuple[object, ...]], role: str, password: SecretStr) -> None:
    """Set a role's password and allow it to log in; the server gets only the SCRAM verifier."""
    verifier = connection.pgconn.encrypt_password(
        password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
    ).decode()
    connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))


def new_password() -> SecretStr:
    return SecretStr(secrets.token_urlsafe(24))


def start_server(directory: Path, programs: Programs, log: Path) -> None:
    """Start the cluster's server, if it does not run; it keeps running when we exit.

    Raises:
        ProgramError: it did not start; the message has the end of its log.
    """
    if running_server(directory) is not None:
        return
    identity = owner_of(directory, programs)
    log.touch(mode=0o600, exist_ok=True)
    identity.take_over(log)
    argv: list[str | Path] = [
        programs.path("pg_ctl"), "start", "--wait", f"--timeout={START_WITHIN_S}", f"--pgdata={directory}",
        f"--log={log}",
    ]  # fmt: skip
    try:
        run_as(identity, argv)
    except ProgramError:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise ProgramError(
            f"The server in {directory} did not start: {' / '.join(lines[-3:]) or 'its log is empty'}.",
            detail="The recovered data is intact.",
            hint=f"see {log}; if a setting is the cause, correct {directory / CONF}",
        ) from None


def stop_server(directory: Path, programs: Programs) -> None:
    """Stop the cluster's server, if it runs."""
    if running_server(directory) is None:
        return
    identity: ServerIdentity = owner_of(directory, programs)
    run_as(identity, [programs.path("pg_ctl"), "stop", "--wait", "--mode=fast", f"--pgdata={directory}"])


def require_login(postgres: PostgresSettings) -> int:
    """Connect as the application will, and count the tables it sees.

    Raises:
        DatabaseError: the login failed.
    """
    with connect(postgres) as connection:
        row = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog',"
            " 'information_schema')"
        ).fetchone()
    return int(row[0]) if row else 0
