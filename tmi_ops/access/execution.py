"""Executes a plan in one transaction. Passwords never reach the server in the clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tmi_ops.access.declared import DeclaredAccess, RoleKind
from tmi_ops.access.findings import Statement
from tmi_ops.access.planning import Plan
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.progress import Report

# A change of owner waits for sessions that use the table, and all others queue behind it.
LOCK_TIMEOUT_S = 5.0
# Two concurrent runs would create the same roles.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('tmi_ops access'))"
# Only a superuser may turn logging off; otherwise the log contains the verifier, never the password.
_SILENCED: Mapping[str, str] = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track": "none",
    "pgaudit.log": "none",
}


def apply_access(
    connection: psycopg.Connection[Any],
    plan: Plan,
    declared: DeclaredAccess,
    passwords: Mapping[RoleKind, SecretStr],
    report: Report,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> int:
    """Execute all statements of the plan, or none. Returns their number.

    Args:
        passwords: one for each statement that sets one. Only SCRAM verifiers computed here are sent to the server.

    Raises:
        DatabaseError: a statement failed or waited too long for a lock; all were rolled back.
    """
    names = {role.kind: role.name for role in declared.roles}
    phase_of_all = report.phase("Roles and privileges", total=len(plan.statements), unit="steps")
    with phase_of_all as phase, connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout_s * 1000:.0f}ms'")
        connection.execute(_LOCK)
        silenced = False
        for statement in plan.statements:
            if statement.password_of is not None and not silenced:
                _silence_log(connection)
                silenced = True
            _execute(connection, statement, names, passwords)
            phase.advance(1)
    return len(plan.statements)


def _execute(
    connection: psycopg.Connection[Any],
    statement: Statement,
    names: Mapping[RoleKind, str],
    passwords: Mapping[RoleKind, SecretStr],
) -> None:
    try:
        if statement.password_of is None:
            connection.execute(statement.sql.encode())
        else:
            _set_password(connection, names[statement.password_of], passwords[statement.password_of])
    except psycopg.Error as error:
        raise _refused(statement, error) from None


def _set_password(connection: psycopg.Connection[Any], role: str, password: SecretStr) -> None:
    verifier = connection.pgconn.encrypt_password(
        password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
    ).decode()
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)), prepare=False
    )


def _silence_log(connection: psycopg.Connection[Any]) -> None:
    for name, value in _SILENCED.items():
        try:
            with connection.transaction():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        except psycopg.Error:
            # The server does not have the setting, or this role may not change it.
            continue


def _refused(statement: Statement, error: psycopg.Error) -> DatabaseError:
    said = first_line(error)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return DatabaseError(
            f"Another session holds a lock that this statement needs: {statement.sql}",
            detail="Everything was rolled back.",
            hint="find it with `tmi-ops health --probe blocked_sessions`, then run `tmi-ops roles apply` again",
            code=Code.ROLES_LOCKED,
            transient=True,
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseError(
            f"The server refused {statement.sql} {said}.",
            detail="Everything was rolled back.",
            hint="connect as a superuser, or as the managed server's administrator",
            code=Code.ROLES_RIGHTS,
        )
    return DatabaseError(
        f"The server refused {statement.sql} {said}.", detail="Everything was rolled back.", code=Code.ROLES
    )
