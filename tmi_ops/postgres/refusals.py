"""Why libpq or the server refuses a connection: one table of their messages, with a hint for each.

libpq gives no SQLSTATE for a failed connection, so the message decides. With sslmode `prefer` it tries twice and
reports both; the first match in the table counts. Only English messages are recognized (lc_messages of the server).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.hba import RELOAD, hba_refusal
from tmi_ops.settings import PostgresSettings


class Gate(StrEnum):
    """The stages of a connection, in order."""

    TLS = "tls"
    ACCEPTING = "accepting"
    ACCESS = "pg-hba"
    AUTHENTICATION = "authentication"
    DATABASE = "database"


class Refusal(StrEnum):
    """Why a connection is refused."""

    WRONG_PASSWORD = "wrong password"  # noqa: S105 a reason
    NO_PASSWORD = "no password"  # noqa: S105 a reason
    UNKNOWN_AUTHORITY = "unknown authority"
    WRONG_NAME = "wrong name"
    NO_ROOT_FILE = "no root file"
    CLIENT_CERTIFICATE = "client certificate"
    NO_TLS = "no TLS"
    HANDSHAKE = "handshake"
    NO_WALSENDERS = "no walsenders"
    WALSENDERS_TAKEN = "walsenders taken"
    WAL_LEVEL = "wal_level"
    NO_SLOTS = "no slots"
    NOT_FOR_REPLICATION = "not for replication"
    FULL = "full"
    ROLE_IS_FULL = "role is full"
    NOT_YET = "not yet"
    NO_ROLE = "no role"
    MAY_NOT_LOG_IN = "may not log in"
    NO_DATABASE = "no database"
    MAY_NOT_CONNECT = "may not connect"
    CLOSED_DATABASE = "closed database"
    NO_HBA_LINE = "no pg_hba.conf line"
    OTHER_AUTHENTICATION = "other authentication"

    @property
    def gate(self) -> Gate:
        return _KNOWN[self].gate

    @property
    def code(self) -> Code:
        return Code.RIGHTS_MISSING if self is Refusal.NOT_FOR_REPLICATION else _CODES[self.gate]

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return _KNOWN[self].transient


_CODES = {
    Gate.TLS: Code.TLS_FAILED,
    Gate.ACCEPTING: Code.NOT_ACCEPTING,
    Gate.ACCESS: Code.HBA_REJECTED,
    Gate.AUTHENTICATION: Code.LOGIN_FAILED,
    Gate.DATABASE: Code.DATABASE_REFUSED,
}


@dataclass(frozen=True)
class _Known:
    """`text`: a pattern of the message. `hint`: with {user}, {role} and {database} in it."""

    text: str
    gate: Gate
    hint: str
    transient: bool = False


_REPLICA = "ALTER SYSTEM SET wal_level = 'replica'"
_KNOWN: dict[Refusal, _Known] = {
    Refusal.WRONG_PASSWORD: _Known(
        "password authentication failed", Gate.AUTHENTICATION, "check POSTGRES_USER and POSTGRES_PASSWORD"
    ),
    Refusal.NO_PASSWORD: _Known("no password supplied", Gate.AUTHENTICATION, "set POSTGRES_PASSWORD"),
    Refusal.UNKNOWN_AUTHORITY: _Known(
        "certificate verify failed",
        Gate.TLS,
        "set POSTGRES_SSLROOTCERT to the CA that signed the server's certificate",
    ),
    Refusal.WRONG_NAME: _Known(
        "does not match host name", Gate.TLS, "set POSTGRES_HOST to the name in the server's certificate"
    ),
    Refusal.NO_ROOT_FILE: _Known(
        r"root certificate file .*(does not exist|could not)|could not read root certificate",
        Gate.TLS,
        "set POSTGRES_SSLROOTCERT to the file with the CA's certificate",
    ),
    Refusal.CLIENT_CERTIFICATE: _Known(
        "requires a valid client certificate",
        Gate.TLS,
        "set POSTGRES_SSLCERT and POSTGRES_SSLKEY to a certificate signed by the server's ssl_ca_file, and to its key",
    ),
    Refusal.NO_TLS: _Known(
        "server does not support SSL|SSL was required",
        Gate.TLS,
        "enable ssl on the server, or set POSTGRES_SSLMODE to a mode that works without it",
    ),
    Refusal.HANDSHAKE: _Known(
        "SSL error|SSL SYSCALL",
        Gate.TLS,
        "compare ssl_min_protocol_version on the server with the TLS versions that this machine supports",
    ),
    Refusal.NO_WALSENDERS: _Known(
        r"exceeds max_wal_senders \(currently 0\)|max_wal_senders > 0",
        Gate.ACCEPTING,
        f"on the server: {_REPLICA}; ALTER SYSTEM SET max_wal_senders = 10; then restart",
    ),
    Refusal.WALSENDERS_TAKEN: _Known(
        "exceeds max_wal_senders",
        Gate.ACCEPTING,
        f"on the server: {_REPLICA}; ALTER SYSTEM SET max_wal_senders = 10; then restart",
        transient=True,
    ),
    Refusal.WAL_LEVEL: _Known("wal_level", Gate.ACCEPTING, f"on the server: {_REPLICA}; then restart it"),
    Refusal.NO_SLOTS: _Known(
        "max_replication_slots",
        Gate.ACCEPTING,
        "on the server: ALTER SYSTEM SET max_replication_slots = 10; then restart it",
    ),
    Refusal.NOT_FOR_REPLICATION: _Known(
        r"permission denied to (start WAL sender|use replication slots)|must be superuser or replication role",
        Gate.AUTHENTICATION,
        "as a superuser: ALTER ROLE {role} REPLICATION;",
    ),
    Refusal.FULL: _Known(
        "too many clients|remaining connection slots",
        Gate.ACCEPTING,
        "wait, or raise max_connections on the server",
        transient=True,
    ),
    Refusal.ROLE_IS_FULL: _Known(
        "too many connections for",
        Gate.ACCEPTING,
        "as a superuser: ALTER ROLE {role} CONNECTION LIMIT -1; or ALTER DATABASE {database} CONNECTION LIMIT -1;",
        transient=True,
    ),
    Refusal.NOT_YET: _Known(
        "database system is|recovery mode", Gate.ACCEPTING, "wait until the server has started", transient=True
    ),
    Refusal.NO_ROLE: _Known(
        r'role "[^"]*" does not exist',
        Gate.AUTHENTICATION,
        "check POSTGRES_USER; create the declared roles as a superuser with `tmi-ops roles apply`",
    ),
    Refusal.MAY_NOT_LOG_IN: _Known(
        "not permitted to log in",
        Gate.AUTHENTICATION,
        "set POSTGRES_USER to a role with LOGIN; or as a superuser: ALTER ROLE {role} LOGIN;",
    ),
    Refusal.NO_DATABASE: _Known(
        r'database "[^"]*" does not exist',
        Gate.DATABASE,
        "check POSTGRES_DB, or create the database with `tmi-ops migrate`",
    ),
    Refusal.MAY_NOT_CONNECT: _Known(
        "permission denied for database",
        Gate.DATABASE,
        "as the database's owner: GRANT CONNECT ON DATABASE {database} TO {role};",
    ),
    Refusal.CLOSED_DATABASE: _Known(
        "not currently accepting connections",
        Gate.DATABASE,
        "wait if a restore is running; else, in another database: ALTER DATABASE {database} ALLOW_CONNECTIONS true;",
        transient=True,
    ),
    Refusal.NO_HBA_LINE: _Known(r"no pg_hba\.conf entry|pg_hba\.conf rejects", Gate.ACCESS, "{hba}"),
    Refusal.OTHER_AUTHENTICATION: _Known(
        "authentication failed|authentication method",
        Gate.AUTHENTICATION,
        "set the method of the pg_hba.conf line that matches this connection to scram-sha-256, or to one this client "
        "supports",
    ),
}
_LIBPQS_ADDRESS = re.compile(r"^connection (?:failed|is bad): connection to server .*? failed: ")


def refusal_of(said: str) -> Refusal | None:
    """Why a connection was refused; None if the message is not known."""
    said = _unquoted(said)
    return next((one for one, known in _KNOWN.items() if re.search(known.text, said)), None)


def explained(said: str, postgres: PostgresSettings, *, what: str = "", otherwise: str = "") -> DatabaseError:
    """The error of a refused connection.

    Args:
        what: the connection, for the message; default: the address in the settings.
        otherwise: the hint if the message is not known.
    """
    where = what or postgres.describe()
    refusal = refusal_of(said)
    if refusal is None:
        return DatabaseError(
            f"PostgreSQL could not be reached at {where}: {line_of(said)}.",
            hint=otherwise
            or "check that the server is running and that POSTGRES_HOST and POSTGRES_PORT are right "
            "(embedded stack: `tmi-ops stack status`)",
            code=Code.UNREACHABLE,
            transient=True,
        )
    return DatabaseError(
        f"PostgreSQL refused {where}: {line_of(said, refusal)}.",
        hint=hint(refusal, said, postgres),
        code=refusal.code,
        transient=refusal.transient,
    )


def hint(refusal: Refusal, said: str, postgres: PostgresSettings) -> str:
    """The next step, in one line."""
    step = _KNOWN[refusal].hint
    if refusal is Refusal.NO_HBA_LINE:
        return _let_in(said, postgres)
    return step.format(user=postgres.user, role=_identifier(postgres.user), database=_identifier(postgres.database))


def line_of(said: str, refusal: Refusal | None = None) -> str:
    """The line of the message that says why, without what libpq puts before and after it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if refusal is not None:
        lines = [line for line in lines if re.search(_KNOWN[refusal].text, _unquoted(line))] or lines
    answers = [line for line in lines if not line.startswith("Is the server running")]
    chosen = (answers or lines or ["no message"])[-1]
    return _LIBPQS_ADDRESS.sub("", chosen.split("FATAL:")[-1]).strip().rstrip(".")


def _let_in(said: str, postgres: PostgresSettings) -> str:
    refused = hba_refusal(said, postgres.user, postgres.database)
    line = refused.line if refused else ""
    where = ", above the line that rejects this connection" if refused and refused.is_rejected else ""
    step = f"add this line to pg_hba.conf on the server{where}, then reload it ({RELOAD.rstrip(';')}): {line}"
    if refused and refused.in_clear:
        encrypted = "set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT)"
        step = f"if the server accepts only encrypted connections, {encrypted}; else {step}"
    return step


def _unquoted(said: str) -> str:
    """Since 17 the server quotes the names of its settings."""
    return re.sub(r'"(max_wal_senders|wal_level|max_replication_slots)"', r"\1", said)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
