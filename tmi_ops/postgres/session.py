"""The settings of every session of ours, so that the same query has the same result whatever others have set.

A role, a database or the server may have any setting (ALTER ROLE ... SET, ALTER DATABASE ... SET, postgresql.conf):
limits that end a long backup, output formats, a search_path that gives names another meaning. Most are pinned by the
session's startup options, also for PostgreSQL's programs (PGOPTIONS); the rest by the first statement, because older
servers do not know them, only a superuser may set them, or DEFAULT must still mean the database's value (search_path:
triggers of the application may need it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

CLIENT_ENCODING = "UTF8"
SEARCH_PATH = "public"

# Known to every server from PostgreSQL 13 on, and settable by every role.
_AT_START: Mapping[str, str] = {
    # limits
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # transactions
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_deferrable": "off",
    # output formats
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "xmloption": "content",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # which rows are visible: an error instead of only some of them
    "row_security": "off",
    "gin_fuzzy_search_limit": "0",
    "synchronize_seqscans": "off",
    "default_table_access_method": "heap",
    # compiling takes longer than our statements
    "jit": "off",
}
_SINCE: Mapping[int, Mapping[str, str]] = {14: {"idle_session_timeout": "0"}, 17: {"transaction_timeout": "0"}}
# Only for superusers: triggers fire, and damage is an error instead of being skipped.
_SUPERUSERS: Mapping[str, str] = {
    "session_replication_role": "origin",
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
}

_OPTION = re.compile(r"-c\s*(\w+)=")
_PIN = sql.SQL(
    """
    SELECT pg_catalog.set_config(s.name, s.value, false)
    FROM (VALUES {}) AS s (name, value, superusers)
    WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
      AND (NOT s.superusers OR pg_catalog.current_setting('is_superuser')::pg_catalog.bool)
    """
)


def startup_options(server_major: int = 0) -> str:
    """The `options` of a new session, for libpq.

    Args:
        server_major: the server's version, if known; settings newer than 13 are pinned only then.
    """
    pinned = dict(_AT_START)
    for major, settings in _SINCE.items():
        if server_major >= major:
            pinned |= settings
    return " ".join(f"-c {name}={value}" for name, value in pinned.items())


def pin_session(
    connection: psycopg.Connection[Any],
    *,
    began_with_options: bool = True,
    asked_for: str | None = None,
    search_path: str = SEARCH_PATH,
) -> None:
    """Pin what could not be pinned at the start of the session. One round trip.

    Args:
        began_with_options: the session began with `startup_options`; otherwise those are pinned here too.
        asked_for: the session's own options. What they set is not pinned: a session on a copy switches event triggers
            off with `session_replication_role`.
    """
    kept = set(_OPTION.findall(asked_for or ""))
    own = {"search_path": search_path}
    for settings in (*_SINCE.values(), *(() if began_with_options else (_AT_START,))):
        own |= settings
    rows = [(name, value.replace("\\", ""), False) for name, value in own.items() if name not in kept]
    rows += [(name, value, True) for name, value in _SUPERUSERS.items() if name not in kept]
    values = sql.SQL(", ").join(sql.SQL("({}, {}, {})").format(*map(sql.Literal, row)) for row in rows)
    if connection.autocommit:
        connection.execute(_PIN.format(values))
        return
    connection.autocommit = True
    connection.execute(_PIN.format(values))
    connection.autocommit = False
