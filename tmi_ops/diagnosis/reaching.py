"""Checks of the connection to TMI's database: name, port, TLS, pg_hba.conf, password, database."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.network import CONNECT_TIMEOUT_S, knock, look_up, offers_tls
from tmi_ops.diagnosis.refusals import certificate_has_expired
from tmi_ops.diagnosis.sql import RELOAD
from tmi_ops.postgres.refusals import Gate
from tmi_ops.settings import PostgresSettings

RENEW_BEFORE = timedelta(days=14)
_ANSWER_TIMEOUT_S = 3.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


def look_at_name(context: DiagnosisContext) -> Answer:
    if context.postgres.host.startswith("/"):
        return fine("a Unix socket")
    return look_up(context.postgres_service)


def look_at_port(context: DiagnosisContext) -> Answer:
    postgres = context.postgres
    if postgres.host.startswith("/"):
        file = Path(postgres.host) / f".s.PGSQL.{postgres.port}"
        if file.is_socket():
            return fine(f"{file} exists")
        return critical(
            f"the socket {file} does not exist",
            "PostgreSQL is not running, listens on another port, or keeps its socket elsewhere",
            "SHOW unix_socket_directories;  -- on the server",
        )

    def converse(connection: socket.socket) -> Answer:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        context.offers_tls = offers_tls(connection)
        address = context.postgres_service.address
        if context.offers_tls is None:
            return critical(
                f"what answers at {address} is not PostgreSQL",
                "POSTGRES_PORT belongs to another program, or to a proxy or load balancer without a server behind it",
                "set POSTGRES_HOST and POSTGRES_PORT to those of PostgreSQL (port usually 5432)",
                f"ss -ltnp 'sport = :{postgres.port}'  # on that host; shows which program listens there",
            )
        return fine(f"PostgreSQL answers at {address}")

    return knock(context.postgres_service, converse)


def look_at_tls(context: DiagnosisContext) -> Answer:
    postgres = context.postgres
    if broken := _refused_at(context, Gate.TLS):
        return certificate_has_expired(postgres) if look_at_certificate(postgres).has_expired else broken
    if (
        postgres.sslmode == "disable"
        and context.offers_tls
        and _refused_at(context, Gate.ACCESS)
        and _let_in_with_tls(context)
    ):
        return critical(
            "the server refuses this connection without TLS, and accepts it with TLS",
            "pg_hba.conf has only hostssl lines for it, and POSTGRES_SSLMODE=disable forbids TLS",
            "set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT)",
        )
    if isinstance(context.attempt, str):
        return fine("offered by the server" if context.offers_tls else "not offered by the server, and not required")
    if not context.attempt.pgconn.ssl_in_use:
        seen = f"not used (sslmode={postgres.sslmode})"
        if postgres.host in _LOCAL or postgres.host.startswith("/"):
            return fine(f"{seen}; the server is on this machine")
        return warning(
            seen,
            "the password and all rows are sent in the clear",
            "set POSTGRES_SSLMODE=require" if context.offers_tls else "on the server: ALTER SYSTEM SET ssl = on;",
            *(() if context.offers_tls else (RELOAD,)),
        )
    return _judge_certificate(postgres)


def _judge_certificate(postgres: PostgresSettings) -> Answer:
    verified = "certificate and name verified" if postgres.sslmode == "verify-full" else f"sslmode={postgres.sslmode}"
    ends = look_at_certificate(postgres).ends
    if ends is None:
        return fine(f"used; {verified}")
    seen = f"used; {verified}; the certificate expires on {ends:%Y-%m-%d}"
    if ends - datetime.now(UTC) > RENEW_BEFORE:
        return fine(seen)
    return warning(
        seen,
        "after that, every client that verifies the certificate fails to connect, TMI included",
        "renew it, install it as ssl_cert_file, and reload the server (no restart needed):",
        RELOAD,
    )


def look_at_gate(gate: Gate, passed: str) -> Link:
    """The link of one gate: whether the connection failed there or passed it."""

    def look(context: DiagnosisContext) -> Answer:
        if broken := _refused_at(context, gate):
            return broken
        if isinstance(context.attempt, str) and context.refusal is None and gate == Gate.ACCEPTING:
            return critical(
                context.attempt.splitlines()[-1].strip(),
                "the server, or a proxy in between, refuses the connection for a reason the doctor does not recognize",
                "read the latest lines of the server's log",
            )
        return fine(passed.format(user=context.postgres.user, database=context.postgres.database))

    gates = list(Gate)
    before = gates[gates.index(gate) - 1]
    return Link(gate, _TITLES[gate], Area.CONNECTION, look, (before,))


_TITLES = {
    Gate.ACCEPTING: "accepts connections",
    Gate.ACCESS: "pg_hba.conf",
    Gate.AUTHENTICATION: "authentication",
    Gate.DATABASE: "database exists",
}


def _refused_at(context: DiagnosisContext, gate: Gate) -> Answer | None:
    refusal = context.refusal
    return refusal.finding if refusal is not None and refusal.gate == gate else None


def _let_in_with_tls(context: DiagnosisContext) -> bool:
    attempt = context.connect(sslmode="require")
    return not isinstance(attempt, str) or "pg_hba.conf" not in attempt


@dataclass(frozen=True)
class ShownCertificate:
    """`ends`: None if unknown. `problem`: OpenSSL's message if the certificate is not trusted."""

    ends: datetime | None = None
    problem: str = ""

    @property
    def has_expired(self) -> bool:
        return "expired" in self.problem


def look_at_certificate(postgres: PostgresSettings) -> ShownCertificate:
    """Do another TLS handshake and read the certificate. Python shows only verified ones, so this needs sslrootcert.

    The name is not compared: libpq does that.
    """
    if postgres.sslrootcert is None:
        return ShownCertificate()
    try:
        context = ssl.create_default_context(cafile=postgres.sslrootcert)
        context.check_hostname = False
        with socket.create_connection((postgres.host, postgres.port), timeout=CONNECT_TIMEOUT_S) as connection:
            if not offers_tls(connection):
                return ShownCertificate()
            with context.wrap_socket(connection) as encrypted:
                shown = encrypted.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return ShownCertificate(problem=error.verify_message)
    except OSError:
        return ShownCertificate()
    ends = shown.get("notAfter")
    if not isinstance(ends, str):
        return ShownCertificate()
    return ShownCertificate(datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC))


REACHING = (
    Link("dns", "host name", Area.CONNECTION, look_at_name, ("settings",)),
    Link("port", "port", Area.CONNECTION, look_at_port, ("dns",)),
    Link(Gate.TLS, "TLS", Area.CONNECTION, look_at_tls, ("port",)),
    look_at_gate(Gate.ACCEPTING, "the server accepts connections"),
    look_at_gate(Gate.ACCESS, "{user} may connect to {database} from here"),
    look_at_gate(Gate.AUTHENTICATION, "{user} is authenticated"),
    look_at_gate(Gate.DATABASE, "{user} can connect to {database}"),
)
