"""Ends a session safely: only the one that was seen, in the state it was seen in, and never a protected one."""

from __future__ import annotations

import time
from typing import Any, LiteralString

import psycopg

from tmi_ops.health.maintenance.limits import Limits
from tmi_ops.health.maintenance.steps import EndSession
from tmi_ops.health.probes.sessions import OURS

_POLL_S = 0.05

# One statement looks and signals, so that the pid cannot pass to another session, or the session to a new transaction.
_SAME = """
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s AND a.xact_start IS NOT DISTINCT FROM %(xact_start)s
  AND a.backend_type = 'client backend' AND NOT r.rolsuper AND NOT r.rolreplication
  AND a.pid <> pg_backend_pid() AND a.application_name <> %(ours)s
  AND CASE WHEN %(idle)s THEN a.state LIKE 'idle in transaction%%'
           ELSE a.state IN ('active', 'fastpath function call') END
"""
_CANCEL: LiteralString = "SELECT pg_cancel_backend(a.pid)" + _SAME
_TERMINATE: LiteralString = "SELECT pg_terminate_backend(a.pid)" + _SAME
_STILL: LiteralString = "SELECT true" + _SAME


def end_session(connection: psycopg.Connection[Any], step: EndSession, limits: Limits) -> str | None:
    """Cancel the query; if it does not end within the grace period, or none is running, end the session.

    Returns:
        What was done; None if the session had moved on, so that nothing was done.

    Raises:
        psycopg.errors.InsufficientPrivilege: the role may not signal that session.
        TimeoutError: the session is still there after both.
    """
    if not step.idle:
        if not _ask(connection, _CANCEL, step):
            return None
        if _gone(connection, step, limits.grace_s):
            return "cancelled its query"
    if not _ask(connection, _TERMINATE, step):
        return None if step.idle else "cancelled its query"
    if not _gone(connection, step, limits.grace_s):
        raise TimeoutError("the server accepted the signal, but the session still exists")
    return "ended the session; its open transaction was rolled back"


def _gone(connection: psycopg.Connection[Any], step: EndSession, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while _ask(connection, _STILL, step):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _ask(connection: psycopg.Connection[Any], query: LiteralString, step: EndSession) -> bool:
    parameters = {
        "pid": step.pid,
        "backend_start": step.backend_start,
        "xact_start": step.xact_start,
        "idle": step.idle,
        "ours": OURS,
    }
    return connection.execute(query, parameters).fetchone() is not None
