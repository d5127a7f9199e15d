"""Obstacles: what would make a later step fail, found while planning, each with its remedy."""

from __future__ import annotations

import errno
import os
import pwd
import re
import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.errors import DiskSpaceError, OpsError, RecoveryError, StoreError
from tmi_ops.postgres.versions import GRANTORS, since
from tmi_ops.recovery.point_in_time.destination import require_room
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.runbooks.application import ROLES
from tmi_ops.runbooks.plan import Obstacle
from tmi_ops.runbooks.serving.steps import ServeRequest
from tmi_ops.runbooks.steps.place import Place, place_of, require_empty
from tmi_ops.store.encryption import read_identities
from tmi_ops.store.manifest import BackupManifest
from tmi_ops.store.objects import ObjectStore

_LISTENING = socket.AI_PASSIVE | socket.AI_NUMERICSERV
_ME = "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"


def serve_obstacles(request: ServeRequest) -> Iterator[Obstacle]:
    """Obstacles for the new server's port, its networks and the connection files."""
    yield from port_obstacles(request.port, request.addresses)
    yield from network_obstacles(request.allowed)
    yield from file_obstacles(request.files)


def port_obstacles(port: int, addresses: str) -> Iterator[Obstacle]:
    """The port is in use, or the address does not belong to this machine."""
    for name in dict.fromkeys(filter(None, re.split(r"[,\s]+", addresses))):
        try:
            places = socket.getaddrinfo(None if name == "*" else name, port, type=socket.SOCK_STREAM, flags=_LISTENING)
        except OSError as error:
            yield Obstacle(
                what=f"The server cannot listen on {name}: {error.strerror}.",
                hint="name another address with --listen",
            )
            continue
        failed = [found for found in map(_bound, places) if found is not None]
        # PostgreSQL starts if it can listen on one address; on the others the wrong server would answer.
        taken = [error for error in failed if error.errno == errno.EADDRINUSE]
        if taken or len(failed) == len(places):
            yield Obstacle(
                what=f"Port {port} of this machine is not available: {(taken or failed)[0].strerror}.",
                hint="name another port with --port",
            )


def _bound(place: tuple[Any, ...]) -> OSError | None:
    """None if a server could listen there."""
    family, kind, protocol, _, address = place
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def network_obstacles(allowed: Iterable[str]) -> Iterator[Obstacle]:
    """Not a network: the server would not start with it in pg_hba.conf."""
    for network in allowed:
        try:
            ip_network(network, strict=False)
        except ValueError:
            known = False
        else:
            known = "/" in network
        if not known:
            yield Obstacle(
                what=f"{network!r} is not a network in CIDR notation.", hint="write it as --allow 10.0.0.0/8"
            )


def file_obstacles(files: Iterable[str]) -> Iterator[Obstacle]:
    """The connection files could not be written."""
    for file in map(Path, files):
        if file.is_dir():
            yield Obstacle(what=f"{file} is a directory.", hint="name a file in it")
        elif not file.parent.is_dir():
            yield Obstacle(what=f"There is no directory {file.parent} for {file.name}.", hint="create it")
        elif not os.access(file.parent, os.W_OK | os.X_OK):
            yield Obstacle(
                what=f"The directory {file.parent} is not writable.",
                hint="name a file elsewhere, or run this as the directory's owner",
            )


def key_obstacles(identity_file: Path | None, backups: Iterable[BackupManifest]) -> Iterator[Obstacle]:
    """The backups are encrypted and the key is not here."""
    if not any(backup.encrypted for backup in backups):
        return
    try:
        read_identities(identity_file)
    except StoreError as error:
        yield Obstacle(what=error.message, hint=error.hint)


def place_obstacles(directory: Path, owner: str | None) -> Iterator[Obstacle]:
    """The directory is not empty, or cannot be given to its owner."""
    try:
        require_empty(directory)
    except RecoveryError as error:
        yield Obstacle(what=error.message, hint=error.hint)
    if owner is None:
        return
    try:
        account = pwd.getpwnam(owner)
    except KeyError:
        yield Obstacle(
            what=f"This machine has no account {owner}.", hint="create it, or name another account with --owner"
        )
        return
    if account.pw_uid == 0:
        yield Obstacle(what="PostgreSQL refuses to run as root.", hint="name another account with --owner")
    elif os.geteuid() not in (0, account.pw_uid):
        yield Obstacle(
            what=f"Only root can give files to {owner}.",
            hint=f"run this as root or as {owner}, or omit --owner",
        )


def room_obstacles(
    facts: RecoveryFacts, store: ObjectStore, target: Target | None, base: str | None, directory: Path
) -> Iterator[Obstacle]:
    """The disk is too small for the first restore."""
    try:
        plan = plan_recovery(facts, target or Target(), base=base)
    except OpsError:
        return  # reported elsewhere, or found by trying
    try:
        require_room(plan, place_of(Place(directory=str(directory))), store)
    except DiskSpaceError as error:
        yield Obstacle(what=error.message, hint=error.hint)


def fence_obstacles(
    connection: psycopg.Connection[Any],
    database: str,
    roles: tuple[str, ...],
    named: tuple[str, ...],
    *,
    in_place: bool,
) -> Iterator[Obstacle]:
    """Rights our role lacks for the fence and for swapping the databases.

    Args:
        roles: the roles to shut out; empty if the database is closed instead.
        named: the roles named in the environment.
        in_place: the database is swapped on its own server.
    """
    existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
    missing = [role for role in named if role not in existing]
    if missing:
        yield Obstacle(what=f"The server has no role {', '.join(missing)}.", hint=f"correct or unset {ROLES}")
    row = connection.execute(_ME).fetchone()
    if row is None or row[1]:
        return
    me, _, creates_roles, creates_databases = row
    for role in roles:
        if not (creates_roles and _administers(connection, role)):
            yield Obstacle(
                what=f"The role {me} is not allowed to alter the role {role}.",
                hint=f"as a superuser: ALTER ROLE {me} CREATEROLE; GRANT {role} TO {me} WITH ADMIN OPTION",
            )
    if roles and not _may_end_sessions(connection, roles):
        yield Obstacle(
            what=f"The role {me} is not allowed to end sessions of {', '.join(roles)}.",
            hint=f"as a superuser: GRANT pg_signal_backend TO {me}",
        )
    if (in_place or not roles) and not _owns(connection, database):
        yield Obstacle(
            what=f"The role {me} does not own the database {database}, so it can neither close nor rename it.",
            hint=f"as a superuser: ALTER DATABASE {database} OWNER TO {me}; or run this as the owner",
        )
    if in_place and not creates_databases:
        yield Obstacle(
            what=f"The role {me} is not allowed to create databases.",
            hint=f"as a superuser: ALTER ROLE {me} CREATEDB; or recover into a new cluster with --into DIR",
        )


def _administers(connection: psycopg.Connection[Any], role: str) -> bool:
    if connection.info.server_version < since(GRANTORS):
        return not _is_superuser(connection, role)
    row = connection.execute("SELECT pg_has_role(current_user, %s, 'MEMBER WITH ADMIN OPTION')", [role]).fetchone()
    return bool(row and row[0])


def _is_superuser(connection: psycopg.Connection[Any], role: str) -> bool:
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    return bool(row and row[0])


def _may_end_sessions(connection: psycopg.Connection[Any], roles: tuple[str, ...]) -> bool:
    row = connection.execute(
        "SELECT pg_has_role(current_user, 'pg_signal_backend', 'USAGE') OR "
        "(SELECT bool_and(pg_has_role(current_user, name, 'USAGE')) FROM unnest(%s::name[]) name)",
        [list(roles)],
    ).fetchone()
    return bool(row and row[0])


def _owns(connection: psycopg.Connection[Any], database: str) -> bool:
    row = connection.execute(
        "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = %s", [database]
    ).fetchone()
    return bool(row and row[0])
