"""The configuration of a cluster that was recovered onto another machine than it came from. Pure.

What its source had set for its behaviour is carried over. What names places, addresses, certificates, libraries or
standbys of another machine is not, nor is its archiving: two servers must not archive into one place, and one that
waits for a standby that is gone would never commit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tmi_ops.postgres.configuration import quoted_value

# Whole names, or with a star their beginning.
_OF_ANOTHER_MACHINE = (
    "archive_*", "bonjour*", "cluster_name", "config_file", "data_directory", "dynamic_library_path", "event_source",
    "external_pid_file", "hba_file", "huge_page*", "ident_file", "include*", "krb_*", "lc_messages", "listen_addresses",
    "local_preload_libraries", "log_destination", "log_directory", "log_filename", "logging_collector", "port",
    "primary_*", "promote_trigger_file", "recovery_*", "restore_command", "session_preload_libraries",
    "shared_preload_libraries", "ssl", "ssl_*", "standby_mode", "stats_temp_directory", "synchronous_standby_names",
    "syslog_*", "unix_socket_*",
)  # fmt: skip
_UNITS = {"": 8192, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([kMGT]?B)?")
BUFFERS_SHARE = 4  # a quarter of the memory, where the source's would be more than half of it


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and from where it lets in with a password, in CIDR."""

    port: int
    addresses: str
    allowed: tuple[str, ...] = ()
    sockets: str = ""


@dataclass(frozen=True)
class Configuration:
    """`left_out`: settings of the source that were not carried over, by name."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...]


def serving_configuration(
    source: Mapping[str, str], needed: Mapping[str, str], listening: Listening, memory: int
) -> Configuration:
    """Decide.

    Args:
        source: settings of the source, values as written.
        needed: what the source's control file says of settings that the cluster's WAL was written with.
        memory: bytes of this machine.
    """
    carried = {name: value for name, value in source.items() if not _is_of_another_machine(name)}
    left_out = sorted(name for name in source if name not in carried)
    buffers = _bytes(carried.get("shared_buffers", ""))
    if buffers is not None and buffers > memory // 2:
        carried["shared_buffers"] = f"'{memory // BUFFERS_SHARE >> 20}MB'"
        left_out.append("shared_buffers")
    own = {
        "listen_addresses": listening.addresses,
        "port": str(listening.port),
        "unix_socket_directories": listening.sockets,
        "archive_mode": "off",
        "ssl": "off",
    }
    for name, value in needed.items():
        carried.setdefault(name, quoted_value(value))
    lines = [
        "# Carried over from the source.",
        *(f"{name} = {value}" for name, value in sorted(carried.items())),
        "",
        "# Of this machine.",
        *(f"{name} = {quoted_value(value)}" for name, value in own.items()),
    ]
    return Configuration(tuple(lines), tuple(left_out))


def access_lines(listening: Listening, superuser: str) -> tuple[str, ...]:
    """pg_hba.conf: the server's own account as superuser through its socket, everybody else with a password."""
    hosts: Sequence[str] = ("127.0.0.1/32", "::1/128", *listening.allowed)
    return (
        f'local all "{superuser}" peer map=tmi_ops_owner',
        "local all all scram-sha-256",
        *(f"host all all {host} scram-sha-256" for host in hosts),
    )


def _is_of_another_machine(name: str) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in _OF_ANOTHER_MACHINE
    )


def _bytes(value: str) -> int | None:
    match = _SIZE.fullmatch(value.strip("'"))
    return int(match[1]) * _UNITS[(match[2] or "").upper()] if match else None
