"""Checks of host names and ports."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tmi_ops.checks.finding import Answer, critical, fine

CONNECT_TIMEOUT_S = 5.0
# Asks a PostgreSQL server for TLS: length 8, code 80877103; it answers S or N.
# Source: https://www.postgresql.org/docs/current/protocol-message-formats.html (SSLRequest)
_SSL_REQUEST = struct.pack("!II", 8, 80877103)


@dataclass(frozen=True)
class Service:
    """A service we connect to, and the variables that name its address."""

    name: str
    host: str
    port: int
    host_variable: str
    port_variable: str
    start: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def look_up(service: Service) -> Answer:
    """Resolve the name of the service."""
    if _is_address(service.host):
        return fine(f"{service.host} is an IP address")
    try:
        found = socket.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return critical(
            f"{service.host} does not resolve: {getattr(error, 'strerror', None) or error}",
            f"neither DNS nor /etc/hosts knows the name {service.host}, so {service.name} cannot be found",
            f"set {service.host_variable} to the right name or address, if {service.host} is misspelled",
            f"getent hosts {service.host}  # otherwise check this machine's resolver (/etc/resolv.conf)",
        )
    return fine(f"{service.host} resolves to {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}")


def knock(service: Service, converse: Callable[[socket.socket], Answer] | None = None) -> Answer:
    """Open a TCP connection; `converse` may use it."""
    try:
        with socket.create_connection((service.host, service.port), timeout=CONNECT_TIMEOUT_S) as connection:
            return converse(connection) if converse else fine(f"{service.address} is open")
    except TimeoutError:
        return critical(
            f"{service.address} does not answer within {CONNECT_TIMEOUT_S:.0f} s",
            f"packets to {service.address} are dropped: a firewall or security group blocks them, or the host is down",
            f"open TCP port {service.port} from this machine to {service.host} in the firewall or security group",
            f"nc -vz {service.host} {service.port}  # shows whether the port is open",
        )
    except ConnectionRefusedError:
        return critical(
            f"{service.address} refuses connections",
            f"nothing listens there: {service.name} is not running, or listens on another port or on loopback only",
            *service.start,
            f"set {service.port_variable} and {service.host_variable}, if it runs elsewhere",
        )
    except OSError as error:
        return critical(
            f"{service.address}: {error.strerror or error}",
            f"this machine cannot reach {service.host}: a route, VPN or interface is missing, or the connection was "
            "closed",
            f"ip route get {service.host}  # shows the route packets take",
        )


def offers_tls(connection: socket.socket) -> bool | None:
    """Whether the PostgreSQL server offers TLS; None if what answers is not PostgreSQL."""
    connection.sendall(_SSL_REQUEST)
    try:
        answer = connection.recv(1)
    except (TimeoutError, ConnectionError):
        return None
    return {b"S": True, b"N": False}.get(answer)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
