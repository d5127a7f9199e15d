"""Detailed advice for each reason for which a connection is refused (`tmi_ops/postgres/refusals.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tmi_ops.checks.finding import Answer, critical
from tmi_ops.diagnosis.sql import RELOAD, identifier, literal
from tmi_ops.postgres.hba import hba_line, hba_refusal
from tmi_ops.postgres.refusals import Gate, Refusal, hint, line_of, refusal_of
from tmi_ops.settings import PostgresSettings


@dataclass(frozen=True)
class Refused:
    """The gate that refused a connection, and the finding."""

    gate: Gate
    finding: Answer


Explain = Callable[[PostgresSettings, str], Answer]


def explain_refusal(said: str, postgres: PostgresSettings) -> Refused | None:
    """The gate that refused, and why; None if the message is not recognized."""
    refusal = refusal_of(said)
    return None if refusal is None else Refused(refusal.gate, _EXPLAINED[refusal](postgres, said))


def _wrong_password(postgres: PostgresSettings, said: str) -> Answer:
    role = identifier(postgres.user)
    return critical(
        line_of(said, Refusal.WRONG_PASSWORD),
        f"POSTGRES_PASSWORD is not the password of the role {postgres.user}, or the role does not exist, has no "
        "password, or its password has expired: clients are not told which, but the server's log says it",
        "set POSTGRES_PASSWORD to the role's password (in the .env file, quote it if it contains `$`, `#` or spaces)",
        f"SELECT * FROM pg_roles WHERE rolname = {literal(postgres.user)};  -- may it log in? expired?",  # noqa: S608
        f"\\password {role}  -- in psql, as a superuser: sets a new password; this makes it never expire:",
        f"ALTER ROLE {role} LOGIN VALID UNTIL 'infinity';",
        "tmi-ops roles apply  # if the role does not exist, as a superuser: creates the roles with their passwords",
    )


def _no_password(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        "the server asks for a password, and none is set",
        f"POSTGRES_PASSWORD is empty or missing for {postgres.user}",
        "set POSTGRES_PASSWORD in the process or in the .env file of the environment",
    )


def _no_role(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.NO_ROLE),
        f"pg_hba.conf admits {postgres.user} without a password, but there is no such role",
        "set POSTGRES_USER to a role that exists, or create it, as a superuser:",
        f"CREATE ROLE {identifier(postgres.user)} LOGIN;",
        f"\\password {identifier(postgres.user)}  -- in psql",
    )


def _may_not_log_in(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.MAY_NOT_LOG_IN),
        f"the role {postgres.user} exists, but has NOLOGIN",
        "set POSTGRES_USER to a role with LOGIN, or as a superuser:",
        f"ALTER ROLE {identifier(postgres.user)} LOGIN;",
    )


def _other_authentication(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.OTHER_AUTHENTICATION),
        f"pg_hba.conf requires another authentication method than a password for {postgres.user} from this address",
        "set the method of the line that matches this connection to scram-sha-256; the current lines are:",
        "SELECT line_number, type, database, user_name, address, auth_method FROM pg_hba_file_rules;",
        RELOAD,
    )


def _no_entry(postgres: PostgresSettings, said: str) -> Answer:
    refused = hba_refusal(said, postgres.user, postgres.database)
    if refused is None:  # its message is what led here
        raise AssertionError(said)
    return critical(
        line_of(said, Refusal.NO_HBA_LINE),
        "the first line of pg_hba.conf that matches this connection has the method reject"
        if refused.is_rejected
        else "no line of pg_hba.conf matches this user, database, address and encryption, so the server does not even "
        "ask for the password",
        f"add this line to pg_hba.conf on the server{', above the one that rejects' if refused.is_rejected else ''}:",
        refused.line,
        RELOAD,
        "SHOW hba_file;  -- the file's path; pg_hba_file_rules shows its lines as the server reads them",
    )


def _for_replication(postgres: PostgresSettings, said: str) -> Answer:
    refusal = refusal_of(said) or Refusal.WAL_LEVEL
    return critical(line_of(said, refusal), "the server refuses to send WAL", hint(refusal, said, postgres))


def _no_tls(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        f"sslmode={postgres.sslmode}, but the server does not offer TLS",
        "the server runs with ssl = off",
        "on the server, with a certificate and key in place (ssl_cert_file, ssl_key_file):",
        "ALTER SYSTEM SET ssl = on;",
        RELOAD,
        "set POSTGRES_SSLMODE=prefer only if nobody can listen on the network in between (production refuses it)",
    )


def _unknown_authority(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.UNKNOWN_AUTHORITY),
        "the server's certificate was not signed by the authority in "
        f"{postgres.sslrootcert or '~/.postgresql/root.crt'}: the CA file is wrong, or the connection is intercepted",
        "set POSTGRES_SSLROOTCERT to the CA that signed the server's certificate; compare both:",
        f"openssl s_client -starttls postgres -connect {postgres.host}:{postgres.port} -showcerts </dev/null",
        f"openssl x509 -noout -subject -dates -in {postgres.sslrootcert or '~/.postgresql/root.crt'}",
    )


def certificate_has_expired(postgres: PostgresSettings) -> Answer:
    return critical(
        "the server's certificate has expired",
        "it, or its authority's certificate, was not renewed in time (or this machine's clock is wrong: date -u)",
        "renew it, install it as ssl_cert_file, and reload the server (no restart needed):",
        RELOAD,
        f"openssl s_client -starttls postgres -connect {postgres.host}:{postgres.port} </dev/null | "
        "openssl x509 -noout -dates  # shows the dates of the server's certificate",
    )


def _wrong_name(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.WRONG_NAME),
        f"the certificate is valid, but for another name than {postgres.host}",
        "set POSTGRES_HOST to a name in the certificate (the line above names one), or",
        f"issue a new certificate with {postgres.host} among its subjectAltNames",
    )


def _no_root_file(postgres: PostgresSettings, said: str) -> Answer:
    where = postgres.sslrootcert or "~/.postgresql/root.crt"
    return critical(
        f"sslmode={postgres.sslmode}, but the CA file {where} cannot be read",
        "without the CA's certificate, the server's certificate cannot be verified",
        "set POSTGRES_SSLROOTCERT to the file with the CA's certificate (PEM), readable by this user",
    )


def _client_certificate(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        "the server asks for a client certificate",
        "the matching line of pg_hba.conf has clientcert or cert, and "
        + (
            "the server does not trust the certificate in POSTGRES_SSLCERT"
            if postgres.sslcert
            else "no client certificate is configured"
        ),
        "set POSTGRES_SSLCERT and POSTGRES_SSLKEY to a certificate that the server's ssl_ca_file signed, and its key",
        "or add a line for this role without clientcert to pg_hba.conf, above that one:",
        hba_line(postgres.database, postgres.user).replace("samehost", "samenet"),
        RELOAD,
    )


def _handshake(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.HANDSHAKE),
        "client and server have no TLS version or cipher in common, or a proxy is in between",
        "SHOW ssl_min_protocol_version;  -- on the server; every current client supports TLSv1.2",
    )


def _full(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.FULL),
        "all connections of max_connections are in use, so new ones are refused, tmi_ops's included",
        "find out who holds them, as a superuser (superuser_reserved_connections leaves room for that):",
        "SELECT usename, application_name, state, count(*), max(now() - state_change) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' GROUP BY 1, 2, 3 ORDER BY 4 DESC;",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE state = 'idle' AND state_change < now() - interval '10 minutes' AND pid <> pg_backend_pid();",
        "ALTER SYSTEM SET max_connections = 200;  -- then restart; smaller pools are better (guide: 25 each)",
    )


def _role_is_full(postgres: PostgresSettings, said: str) -> Answer:
    of_role = "for role" in said
    kind, name = ("ROLE", postgres.user) if of_role else ("DATABASE", postgres.database)
    return critical(
        line_of(said, Refusal.ROLE_IS_FULL),
        f"the {kind.lower()} {name} has reached its CONNECTION LIMIT",
        "as a superuser:",
        f"ALTER {kind} {identifier(name)} CONNECTION LIMIT -1;",
    )


def _not_yet(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.NOT_YET),
        "the server is starting, stopping, or recovering from a crash",
        "wait: crash recovery replays WAL since the last checkpoint; the server's log shows the progress",
    )


def _no_database(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.NO_DATABASE),
        f"the server has no database {postgres.database}",
        "set POSTGRES_DB to the right name, or create it (as a role with CREATEDB):",
        f"CREATE DATABASE {identifier(postgres.database)};",
        "tmi-ops migrate  # creates the database and TMI's tables in it",
    )


def _may_not_connect(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.MAY_NOT_CONNECT),
        f"the role {postgres.user} lacks CONNECT on {postgres.database}",
        "as the owner of the database or a superuser:",
        f"GRANT CONNECT ON DATABASE {identifier(postgres.database)} TO {identifier(postgres.user)};",
    )


def _closed_database(postgres: PostgresSettings, said: str) -> Answer:
    return critical(
        line_of(said, Refusal.CLOSED_DATABASE),
        f"the database {postgres.database} does not allow connections (a restore sets this while it runs)",
        "check whether a restore is running; if not, as a superuser in another database:",
        f"ALTER DATABASE {identifier(postgres.database)} ALLOW_CONNECTIONS true;",
    )


_EXPLAINED: dict[Refusal, Explain] = {
    Refusal.WRONG_PASSWORD: _wrong_password,
    Refusal.NO_PASSWORD: _no_password,
    Refusal.UNKNOWN_AUTHORITY: _unknown_authority,
    Refusal.WRONG_NAME: _wrong_name,
    Refusal.NO_ROOT_FILE: _no_root_file,
    Refusal.CLIENT_CERTIFICATE: _client_certificate,
    Refusal.NO_TLS: _no_tls,
    Refusal.HANDSHAKE: _handshake,
    Refusal.NO_WALSENDERS: _for_replication,
    Refusal.WALSENDERS_TAKEN: _for_replication,
    Refusal.WAL_LEVEL: _for_replication,
    Refusal.NO_SLOTS: _for_replication,
    Refusal.NOT_FOR_REPLICATION: _for_replication,
    Refusal.FULL: _full,
    Refusal.ROLE_IS_FULL: _role_is_full,
    Refusal.NOT_YET: _not_yet,
    Refusal.NO_ROLE: _no_role,
    Refusal.MAY_NOT_LOG_IN: _may_not_log_in,
    Refusal.NO_DATABASE: _no_database,
    Refusal.MAY_NOT_CONNECT: _may_not_connect,
    Refusal.CLOSED_DATABASE: _closed_database,
    Refusal.NO_HBA_LINE: _no_entry,
    Refusal.OTHER_AUTHENTICATION: _other_authentication,
}
