"""The server's certificate: when it expires, and why it is not valid, which libpq does not report."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.diagnosis.network import CONNECT_TIMEOUT_S, offers_tls
from tmi_ops.settings import PostgresSettings


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
