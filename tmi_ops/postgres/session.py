"""The settings of every session of ours, so that the same question has the same answer whoever set what for whom.

A role, a database or the server may have set anything (ALTER ROLE ... SET, ALTER DATABASE ... SET, postgresql.conf):
limits that end a long backup, formats that change what a value looks like, a search_path in which a name means another
thing. Most are pinned when the session begins, by its options, programs of PostgreSQL included (PGOPTIONS); the rest by
the first statement, because older servers do not know them, only a superuser may set them, or DEFAULT must still mean
what the database says (search_path: triggers of the application may need its own).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

CLIENT_ENCODING = "UTF8"
SEARCH_PATH = "public"

# Known to every server from PostgreSQL 13 on, and anybody may set them.
_AT_START: Mapping[str, str] = {
    # limits
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # transactions
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_deferrable": "off",
    # what a value looks like
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
    # which rows are seen: an error rather than a part of them
    "row_security": "off",
    "gin_fuzzy_search_limit": "0",
    "synchronize_seqscans": "off",
    "default_table_access_method": "heap",
    # compiling costs more than our statements
    "jit": "off",
}
_SINCE: Mapping[int, Mapping[str, str]] = {14: {"idle_session_timeout": "0"}, 17: {"transaction_timeout": "0"}}
# A superuser's own: triggers fire as they should, and damage is an error rather than skipped.
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
    """The `options` of a new session, as libpq takes them.

    Args:
        server_major: the server's version where it is known; what came later than 13 is pinned only then.
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
    """Pin what could not be pinned when the session began. Takes no longer than one round trip.

    Args:
        began_with_options: with `startup_options`, and nothing was set since; otherwise those are pinned here too.
        asked_for: options that this session began with for a purpose of its own. What they set is not pinned: a session
            on a copy switches its event triggers off with `session_replication_role`.
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
