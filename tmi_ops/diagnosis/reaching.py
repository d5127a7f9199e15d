"""The way into TMI's database: name, port, TLS, pg_hba.conf, password, database."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.certificate import look_at_certificate
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.network import knock, look_up, offers_tls
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.diagnosis.refusals import certificate_has_expired
from tmi_ops.diagnosis.sql import RELOAD
from tmi_ops.postgres.refusals import Gate
from tmi_ops.settings import PostgresSettings

RENEW_BEFORE = timedelta(days=14)
_ANSWER_TIMEOUT_S = 3.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


def look_at_name(patient: Patient) -> Answer:
    if patient.postgres.host.startswith("/"):
        return fine("a Unix socket, no name to look up")
    return look_up(patient.postgres_service)


def look_at_port(patient: Patient) -> Answer:
    postgres = patient.postgres
    if postgres.host.startswith("/"):
        file = Path(postgres.host) / f".s.PGSQL.{postgres.port}"
        if file.is_socket():
            return fine(f"{file} is there")
        return critical(
            f"there is no socket {file}",
            "PostgreSQL is not running, listens on another port, or keeps its socket elsewhere",
            "SHOW unix_socket_directories;  -- on the server",
        )

    def converse(connection: socket.socket) -> Answer:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        patient.offers_tls = offers_tls(connection)
        address = patient.postgres_service.address
        if patient.offers_tls is None:
            return critical(
                f"something answers at {address}, and it is not PostgreSQL",
                "POSTGRES_PORT leads to another program, or a proxy or load balancer without a server behind it",
                "set POSTGRES_HOST and POSTGRES_PORT to PostgreSQL's own (usually 5432)",
                f"ss -ltnp 'sport = :{postgres.port}'  # on that host: which program listens there",
            )
        return fine(f"{address} is open, PostgreSQL answers")

    return knock(patient.postgres_service, converse)


def look_at_tls(patient: Patient) -> Answer:
    postgres = patient.postgres
    if broken := _refused_at(patient, Gate.TLS):
        return certificate_has_expired(postgres) if look_at_certificate(postgres).has_expired else broken
    if (
        postgres.sslmode == "disable"
        and patient.offers_tls
        and _refused_at(patient, Gate.ACCESS)
        and _let_in_with_tls(patient)
    ):
        return critical(
            "the server refuses this connection without TLS, and accepts it with",
            "pg_hba.conf has only hostssl lines for it, and POSTGRES_SSLMODE=disable forbids TLS",
            "set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT)",
        )
    if isinstance(patient.attempt, str):
        return fine("offered by the server" if patient.offers_tls else "not offered by the server, and not required")
    if not patient.attempt.pgconn.ssl_in_use:
        seen = f"not used (sslmode={postgres.sslmode})"
        if postgres.host in _LOCAL or postgres.host.startswith("/"):
            return fine(f"{seen}; the server is on this machine")
        return warning(
            seen,
            "password and rows travel in the clear",
            "set POSTGRES_SSLMODE=require" if patient.offers_tls else "on the server: ALTER SYSTEM SET ssl = on;",
            *(() if patient.offers_tls else (RELOAD,)),
        )
    return _judge_certificate(postgres)


def _judge_certificate(postgres: PostgresSettings) -> Answer:
    verified = "certificate and name verified" if postgres.sslmode == "verify-full" else f"sslmode={postgres.sslmode}"
    ends = look_at_certificate(postgres).ends
    if ends is None:
        return fine(f"used; {verified}")
    seen = f"used; {verified}; the certificate ends on {ends:%Y-%m-%d}"
    if ends - datetime.now(UTC) > RENEW_BEFORE:
        return fine(seen)
    return warning(
        seen,
        "then every connection that verifies it is refused, TMI's own included",
        "have it renewed, put it where ssl_cert_file says, and on the server, without a restart:",
        RELOAD,
    )


def look_at_gate(gate: Gate, passed: str) -> Link:
    """What a gate says of itself, when the connection failed there or got past it."""

    def look(patient: Patient) -> Answer:
        if broken := _refused_at(patient, gate):
            return broken
        if isinstance(patient.attempt, str) and patient.refusal is None and gate == Gate.ACCEPTING:
            return critical(
                patient.attempt.splitlines()[-1].strip(),
                "the server, or something between here and it, refuses the connection in words unknown to the doctor",
                "see the end of the server's log at this moment",
            )
        return fine(passed.format(user=patient.postgres.user, database=patient.postgres.database))

    gates = list(Gate)
    before = gates[gates.index(gate) - 1]
    return Link(gate, _TITLES[gate], Area.CONNECTION, look, (before,))


_TITLES = {
    Gate.ACCEPTING: "accepts connections",
    Gate.ACCESS: "pg_hba.conf",
    Gate.AUTHENTICATION: "authentication",
    Gate.DATABASE: "database exists",
}


def _refused_at(patient: Patient, gate: Gate) -> Answer | None:
    refusal = patient.refusal
    return refusal.finding if refusal is not None and refusal.gate == gate else None


def _let_in_with_tls(patient: Patient) -> bool:
    attempt = patient.connect(sslmode="require")
    return not isinstance(attempt, str) or "pg_hba.conf" not in attempt


REACHING = (
    Link("dns", "host name", Area.CONNECTION, look_at_name, ("settings",)),
    Link("port", "port", Area.CONNECTION, look_at_port, ("dns",)),
    Link(Gate.TLS, "TLS", Area.CONNECTION, look_at_tls, ("port",)),
    look_at_gate(Gate.ACCEPTING, "a connection is to be had"),
    look_at_gate(Gate.ACCESS, "a line lets {user} into {database} from here"),
    look_at_gate(Gate.AUTHENTICATION, "{user} is who it says it is"),
    look_at_gate(Gate.DATABASE, "{database} is there and open to {user}"),
)
