"""The fence: the application cannot connect until it is lifted, which brings back exactly how it was.

Where the application has a role of its own, that role may not log in meanwhile. Where it uses ours, that would shut us
out, so the database itself takes no connections; not even a superuser's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.access.declared import RoleKind, declared_access
from tmi_ops.errors import DatabaseError, RecoveryError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.recovery.exchange import END_SESSIONS_TIMEOUT_S, allow_connections, end_sessions
from tmi_ops.runbooks.application import Application
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.plan import Fact, Step
from tmi_ops.runbooks.steps.hooks import STOP_STEP, run_step_hook
from tmi_ops.settings import PostgresSettings


class Gate(Fact):
    """What is shut: `roles`, or where there is none of its own for the application, the `database`."""

    database: str
    roles: tuple[str, ...]


class GateBefore(Fact):
    """How it was: whether each role might log in, and whether the database took connections."""

    roles: dict[str, bool]
    database_open: bool


def choose_gate(
    connection: psycopg.Connection[Any], postgres: PostgresSettings, application: Application, names: Mapping[str, str]
) -> Gate:
    """What the application comes in by; of a role that is not on the server `obstacles.py` tells.

    Args:
        names: variables that may name roles (`TMI_OPS_ROLE_NAME_APP`).
    """
    existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
    named = tuple(role for role in application.roles if role in existing)
    major = connection.info.server_version // 10000
    declared = declared_access(postgres.database, major, names).of(RoleKind.APP).name
    roles = named or ((declared,) if declared in existing else ())
    own = postgres.user in roles or not roles
    return Gate(database=postgres.database, roles=() if own else tuple(roles))


def fence_step(gate: Gate) -> Step:
    who = f"the role {', '.join(gate.roles)}" if gate.roles else f"every role, superusers included, to {gate.database}"
    return Step(
        name="fence",
        does=f"refuse new connections of {who}, and end the sessions that are open",
        effect="interrupts",
        way_back="let the application in exactly as before",
    )


def lift_step(gate: Gate) -> Step:
    who = ", ".join(gate.roles) or "everybody"
    return Step(
        name="lift",
        does=f"let {who} in again, exactly as before; from then on the application writes to what was recovered",
        effect="irreversible",
    )


def gate_of(work: Work) -> Gate:
    return Gate.model_validate(work.journal.plan.wishes["gate"])


def _shut(work: Work) -> None:
    gate, postgres = gate_of(work), work.settings.postgres
    with connect(postgres, "postgres") as connection:
        if work.journal.known(GateBefore) is None:
            work.remember(_before(connection, gate))
        try:
            if gate.roles:
                for role in gate.roles:
                    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
                _end_sessions_of(connection, gate)
            else:
                allow_connections(connection, gate.database, allowed=False)
                end_sessions(connection, gate.database)
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"{postgres.user} may not shut the application out: {first_line(error)}.",
                hint=f"as a superuser: ALTER ROLE {postgres.user} CREATEROLE and GRANT pg_signal_backend TO "
                f"{postgres.user}, or run this as a superuser",
            ) from None
    work.say("No session of the application is left, and no new one can begin.")


def _lift(work: Work) -> None:
    """What GateBefore says, whatever is there now. Where nothing was remembered, nothing was shut."""
    gate, before = gate_of(work), work.journal.known(GateBefore)
    if before is None:
        return
    with connect(work.settings.postgres, "postgres") as connection:
        for role, login in before.roles.items():
            if login:
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
        if before.database_open:
            allow_connections(connection, gate.database, allowed=True)
    work.say("The application may connect as before.")


def _before(connection: psycopg.Connection[Any], gate: Gate) -> GateBefore:
    roles = connection.execute(
        "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s)", (list(gate.roles),)
    ).fetchall()
    row = connection.execute("SELECT datallowconn FROM pg_database WHERE datname = %s", (gate.database,)).fetchone()
    if row is None:
        raise RecoveryError(f"The server has no database {gate.database}.", hint="check POSTGRES_DB")
    return GateBefore(roles=dict(roles), database_open=bool(row[0]))


def _end_sessions_of(connection: psycopg.Connection[Any], gate: Gate) -> None:
    deadline = time.monotonic() + END_SESSIONS_TIMEOUT_S
    while connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = ANY(%s)",
        (gate.database, list(gate.roles)),
    ).fetchall():
        if time.monotonic() > deadline:
            raise RecoveryError(
                f"Sessions of {', '.join(gate.roles)} do not end.",
                hint="see pg_stat_activity for what they wait for, and pg_prepared_xacts for what no session owns",
                transient=True,
            )
        time.sleep(0.1)


def _lift_and_start(work: Work) -> None:
    """The application is started again only once it may connect."""
    _lift(work)
    if work.journal.last(STOP_STEP) is not None:
        run_step_hook(work, "start")


FENCE = Action(_shut, _lift_and_start)
LIFT = Action(_lift)
