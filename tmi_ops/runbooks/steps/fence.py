"""The fence: the application cannot connect until it is lifted, which restores exactly the former state.

If the application has its own role, that role cannot log in meanwhile. If it shares ours, that would shut us out too,
so the database itself accepts no connections, not even a superuser's.
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
    """What the fence closes: `roles`, or the `database` if the application has no role of its own."""

    database: str
    roles: tuple[str, ...]


class GateBefore(Fact):
    """The state before: whether each role could log in, and whether the database accepted connections."""

    roles: dict[str, bool]
    database_open: bool


def choose_gate(
    connection: psycopg.Connection[Any], postgres: PostgresSettings, application: Application, names: Mapping[str, str]
) -> Gate:
    """What to close for the application; `obstacles.py` reports roles that do not exist.

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
    who = f"of {', '.join(gate.roles)}" if gate.roles else f"to {gate.database}, by superusers too"
    return Step(
        name="fence",
        does=f"refuse new connections {who}, and end the open sessions",
        effect="interrupts",
        way_back="allow the application to connect exactly as before",
    )


def lift_step(gate: Gate) -> Step:
    who = ", ".join(gate.roles) or "all roles"
    return Step(
        name="lift",
        does=f"allow {who} to connect again, exactly as before; from then on the application writes to the recovered "
        "database",
        effect="irreversible",
    )


def gate_of(work: Work) -> Gate:
    return Gate.model_validate(work.journal.plan.requests["gate"])


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
                f"The role {postgres.user} is not allowed to shut the application out: {first_line(error)}.",
                hint=f"as a superuser: ALTER ROLE {postgres.user} CREATEROLE and GRANT pg_signal_backend TO "
                f"{postgres.user}, or run this as a superuser",
            ) from None
    work.say("The application has no open sessions and cannot connect.")


def _lift(work: Work) -> None:
    """Restore what GateBefore says, whatever the state is now. Without it, nothing was closed."""
    gate, before = gate_of(work), work.journal.known(GateBefore)
    if before is None:
        return
    with connect(work.settings.postgres, "postgres") as connection:
        for role, login in before.roles.items():
            if login:
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
        if before.database_open:
            allow_connections(connection, gate.database, allowed=True)
    work.say("The application can connect as before.")


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
                f"Sessions of {', '.join(gate.roles)} did not end within {END_SESSIONS_TIMEOUT_S:.0f} s.",
                hint="see pg_stat_activity for what they wait for, and pg_prepared_xacts for prepared transactions",
                transient=True,
            )
        time.sleep(0.1)


def _lift_and_start(work: Work) -> None:
    """Start the application only once it can connect."""
    _lift(work)
    if work.journal.last(STOP_STEP) is not None:
        run_step_hook(work, "start")


FENCE = Action(_shut, _lift_and_start)
LIFT = Action(_lift)
