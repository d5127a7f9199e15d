"""Quotes identifiers and literals for statements that a person copies."""

from __future__ import annotations

from psycopg import sql

from tmi_ops.postgres import hba

RELOAD = hba.RELOAD
RESTART = "restart the server (systemctl restart postgresql, pg_ctl restart, or its container); a reload is not enough"


def identifier(name: str) -> str:
    """`"tmi_app"`"""
    return sql.Identifier(name).as_string(None)


def literal(text: str) -> str:
    """`'tmi_app'`"""
    return sql.Literal(text).as_string(None)
