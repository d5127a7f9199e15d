"""Every refusal is told once, in the same words, by whoever meets it."""

from __future__ import annotations

import pytest

from tmi_ops.diagnosis.refusals import explain_refusal as doctor
from tmi_ops.error_codes import Code
from tmi_ops.postgres.hba import hba_line, hba_refusal
from tmi_ops.postgres.refusals import Gate, Refusal, explained, line_of, refusal_of
from tmi_ops.settings import PostgresSettings

TMI = PostgresSettings(host="db.example.com", user="tmi_ops", database="tmi")
AT = 'connection failed: connection to server at "10.0.0.5", port 5432 failed: '
SAID = {
    Refusal.WRONG_PASSWORD: 'FATAL:  password authentication failed for user "tmi_ops"',
    Refusal.NO_PASSWORD: "fe_sendauth: no password supplied",
    Refusal.UNKNOWN_AUTHORITY: "SSL error: certificate verify failed",
    Refusal.WRONG_NAME: 'server certificate for "db" does not match host name "db.example.com"',
    Refusal.NO_ROOT_FILE: 'root certificate file "/root/.postgresql/root.crt" does not exist',
    Refusal.CLIENT_CERTIFICATE: "FATAL:  connection requires a valid client certificate",
    Refusal.NO_TLS: "server does not support SSL, but SSL was required",
    Refusal.HANDSHAKE: "SSL error: no protocols available",
    Refusal.NO_WALSENDERS: "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 0)",
    Refusal.WALSENDERS_TAKEN: 'FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 4)',
    Refusal.WAL_LEVEL: 'logical decoding requires "wal_level" >= logical',
    Refusal.NO_SLOTS: 'replication slots can only be used if "max_replication_slots" > 0',
    Refusal.NOT_FOR_REPLICATION: "FATAL:  permission denied to start WAL sender",
    Refusal.FULL: "FATAL:  sorry, too many clients already",
    Refusal.ROLE_IS_FULL: 'FATAL:  too many connections for role "tmi_ops"',
    Refusal.NOT_YET: "FATAL:  the database system is starting up",
    Refusal.NO_ROLE: 'FATAL:  role "tmi_ops" does not exist',
    Refusal.MAY_NOT_LOG_IN: 'FATAL:  role "tmi_ops" is not permitted to log in',
    Refusal.NO_DATABASE: 'FATAL:  database "tmi" does not exist',
    Refusal.MAY_NOT_CONNECT: 'FATAL:  permission denied for database "tmi"',
    Refusal.CLOSED_DATABASE: 'FATAL:  database "tmi" is not currently accepting connections',
    Refusal.NO_HBA_LINE: 'FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "tmi_ops", database "tmi", SSL on',
    Refusal.OTHER_AUTHENTICATION: 'FATAL:  Ident authentication failed for user "tmi_ops"',
}
CODES = {
    Gate.TLS: Code.TLS_FAILED,
    Gate.ACCEPTING: Code.NOT_ACCEPTING,
    Gate.ACCESS: Code.HBA_REJECTED,
    Gate.AUTHENTICATION: Code.LOGIN_FAILED,
    Gate.DATABASE: Code.DATABASE_REFUSED,
}
PASS_BY_THEMSELVES = {
    Refusal.FULL,
    Refusal.ROLE_IS_FULL,
    Refusal.NOT_YET,
    Refusal.WALSENDERS_TAKEN,
    Refusal.CLOSED_DATABASE,
}


@pytest.mark.parametrize("refusal", list(Refusal), ids=str)
def test_each_refusal_is_recognised_explained_by_the_doctor_and_has_a_next_step(refusal: Refusal) -> None:
    said = AT + SAID[refusal]
    assert refusal_of(said) is refusal
    error = explained(said, TMI)
    assert "could not be reached" not in error.message
    assert "refused tmi_ops@db.example.com" in error.message
    assert error.hint
    assert "{" not in error.hint
    assert error.transient is (refusal in PASS_BY_THEMSELVES)
    assert error.code is (Code.RIGHTS_MISSING if refusal is Refusal.NOT_FOR_REPLICATION else CODES[refusal.gate])
    told = doctor(said, TMI)
    assert told is not None
    assert told.gate is refusal.gate
    assert told.finding.cause
    assert told.finding.advice.steps


def test_what_nobody_knows_may_be_a_network_and_is_tried_again() -> None:
    assert refusal_of("Connection refused") is None
    error = explained(AT + "Connection refused\n\tIs the server running on that host?", TMI)
    assert error.transient
    assert error.code is Code.UNREACHABLE
    assert error.message.endswith("/tmi: Connection refused.")
    assert line_of("") == "no message"


def test_the_gates_are_passed_in_this_order() -> None:
    assert list(Gate) == [Gate.TLS, Gate.ACCEPTING, Gate.ACCESS, Gate.AUTHENTICATION, Gate.DATABASE]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            'no pg_hba.conf entry for host "10.0.0.7", user "tmi_ops", database "tmi", no encryption',
            "host  tmi  tmi_ops  10.0.0.7/32  scram-sha-256",
        ),
        (
            'no pg_hba.conf entry for host "fd00::7", user "Tmi Ops", database "tmi", SSL encryption',
            'hostssl  tmi  "Tmi Ops"  fd00::7/128  scram-sha-256',
        ),
        (
            'no pg_hba.conf entry for replication connection from host "10.0.0.7", user "tmi_ops", SSL on',
            "hostssl  replication  tmi_ops  10.0.0.7/32  scram-sha-256",
        ),
        (
            'pg_hba.conf rejects connection for host "10.0.0.7", user "tmi_ops", database "tmi", SSL off',
            "host  tmi  tmi_ops  10.0.0.7/32  scram-sha-256",
        ),
        (
            'pg_hba.conf rejects replication connection for host "10.0.0.7", user "tmi_ops", SSL encryption',
            "hostssl  replication  tmi_ops  10.0.0.7/32  scram-sha-256",
        ),
        (
            'no pg_hba.conf entry for host "[local]", user "tmi_ops", database "tmi", no encryption',
            "host  tmi  tmi_ops  samehost  scram-sha-256",
        ),
    ],
)
def test_the_line_that_lets_a_connection_in_is_made_of_what_the_server_saw(said: str, line: str) -> None:
    refused = hba_refusal(said, "somebody", "somewhere")
    assert refused is not None
    assert refused.line == line
    assert refused.is_rejected is ("rejects" in said)
    assert line in explained(AT + "FATAL:  " + said, TMI).hint


def test_a_name_that_would_mean_something_else_is_quoted_and_all_is_all() -> None:
    assert hba_line("all", "tmi-app", "all") == 'hostssl  all  "tmi-app"  all  scram-sha-256'
