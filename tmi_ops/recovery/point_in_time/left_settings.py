"""Decides on the settings of a restored cluster: it must start and commit, but not archive. Pure.

They are the source's, from when the base backup was taken. Settings that would reach out of the copy (archive,
standbys, publishers, files of another server) or keep it from starting or committing here are set aside:
postgresql.auto.conf overrides them, and a file beside it keeps the source's values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tmi_ops.postgres.configuration import plain_value
from tmi_ops.postgres.sizes import BLOCK, parse_size

_SECRET = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|key)[\w-]*\s*[=:]?\s*)(?:'[^']*'|\"[^\"]*\"|[^\s'\"]+)"
)
_USERINFO = re.compile(r"://[^/@\s]*@")
_ON = ("on", "true", "yes", "1")
BUFFERS_SHARE = 4  # a quarter of the memory, if the source's value is more than half of it

_ARCHIVING = "the copy would archive into its source's archive"
_FOLLOWING = "the copy is not a standby"
_WAITING = "the first commit would wait for a standby"
# Always set aside: the replacement value, and why.
_NEVER: Mapping[str, tuple[str, str]] = {
    "archive_mode": ("off", _ARCHIVING),
    "archive_command": ("", _ARCHIVING),
    "archive_library": ("", _ARCHIVING),
    "archive_cleanup_command": ("", _ARCHIVING),
    "restore_command": ("", "refers to the source's archive"),
    "recovery_end_command": ("", "belongs to the source's recovery"),
    "primary_conninfo": ("", _FOLLOWING),
    "primary_slot_name": ("", _FOLLOWING),
    "recovery_min_apply_delay": ("0", _FOLLOWING),
    "sync_replication_slots": ("off", _FOLLOWING),
    "synchronous_standby_names": ("", _WAITING),
    "synchronized_standby_slots": ("", _WAITING),
    "default_transaction_read_only": ("off", "no transaction could write"),
    "external_pid_file": ("", "belongs to another server"),
}
_LIBRARIES = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
# Source: PostgreSQL's defaults, the same from 13 to 18.
_DEFAULTS: Mapping[str, str] = {
    "max_connections": "100",
    "max_worker_processes": "8",
    "max_wal_senders": "10",
    "max_prepared_transactions": "0",
    "max_locks_per_transaction": "64",
}
_OF_NO_CONSEQUENCE = {"archive_mode": ("off", "false", "no", "0"), "recovery_min_apply_delay": ("0",)}


@dataclass(frozen=True)
class SetAside:
    """A setting that differs from the source's. `before`: the source's value, without secrets; empty: unset."""

    name: str
    before: str
    now: str
    why: str

    def describe(self) -> str:
        was = f"was {self.before}" if self.before else "was not set"
        return f"{self.name} = '{self.now}' ({was}): {self.why}"


@dataclass(frozen=True)
class Machine:
    """What this machine has: files, libraries, addresses, and bytes of memory."""

    is_there: Callable[[str], bool]
    has_library: Callable[[str], bool]
    has_address: Callable[[str], bool]
    memory: int


def set_asides(
    source: Mapping[str, str], needed: Mapping[str, str], machine: Machine, directory: str, subscriptions: int
) -> tuple[SetAside, ...]:
    """Decide which settings to set aside.

    Args:
        source: the source's settings, values as written.
        needed: minimum values from the control file, without which the cluster does not start.
        directory: the data directory.
        subscriptions: how many of the cluster's subscriptions are enabled.
    """
    values = {name: plain_value(value) for name, value in source.items()}
    found = [
        *raised_settings(source, needed),
        *_reaching_out(values, subscriptions),
        *_of_this_machine(values, machine, directory),
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def raised_settings(source: Mapping[str, str], needed: Mapping[str, str]) -> list[SetAside]:
    """Settings that were raised after the base backup was taken, or on a command line, and must be raised here."""
    found = []
    for name, value in needed.items():
        before = plain_value(source.get(name, ""))
        has = before or _DEFAULTS.get(name, "")
        if has.isdigit() and value.isdigit() and int(has) < int(value):
            why = f"the WAL was written with {value}; the cluster may not start with less"
            found.append(SetAside(name, shown(before), value, why))
    if plain_value(source.get("wal_level", "")) == "minimal" and needed.get("wal_level", "minimal") != "minimal":
        found.append(SetAside("wal_level", "minimal", needed["wal_level"], "the WAL was archived"))
    return found


def shown(value: str) -> str:
    """A value for display: on one line, without secrets."""
    visible = "".join(one if one.isprintable() else "?" for one in value)
    return _USERINFO.sub("://***@", _SECRET.sub(r"\1***", visible))


def _reaching_out(values: Mapping[str, str], subscriptions: int) -> Iterator[SetAside]:
    for name, (now, why) in _NEVER.items():
        before = values.get(name, "")
        if before and before != now and before.lower() not in _OF_NO_CONSEQUENCE.get(name, ()):
            yield SetAside(name, shown(before), now, why)
    if subscriptions:
        of_what = f"{subscriptions} enabled subscription{'s' * (subscriptions > 1)}"
        before = values.get("max_logical_replication_workers", "")
        why = f"{of_what} would consume the source's changes; drop or disable them first"
        yield SetAside("max_logical_replication_workers", shown(before), "0", why)
    if "pg_cron" in _listed(values.get("shared_preload_libraries", "")):
        before = values.get("cron.launch_active_jobs", "")
        yield SetAside("cron.launch_active_jobs", shown(before), "off", "the source's jobs would run here, too")


def _of_this_machine(values: Mapping[str, str], machine: Machine, directory: str) -> Iterator[SetAside]:
    for name in _LIBRARIES:
        wanted = _listed(values.get(name, ""))
        there = [library for library in wanted if machine.has_library(library)]
        if there != wanted:
            absent = ", ".join(library for library in wanted if library not in there)
            yield SetAside(name, shown(values[name]), ", ".join(there), f"this machine lacks {shown(absent)}")
    sockets = _listed(values.get("unix_socket_directories", ""))
    there = [place for place in sockets if place.startswith("@") or machine.is_there(place)]
    if there != sockets:
        before = shown(values["unix_socket_directories"])
        yield SetAside("unix_socket_directories", before, ", ".join(there), "no such directory on this machine")
    addresses = _listed(values.get("listen_addresses", ""))
    if addresses and not any(machine.has_address(address) for address in addresses):
        before = shown(values["listen_addresses"])
        yield SetAside("listen_addresses", before, "localhost", "no such address on this machine")
    for name, default in (("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")):
        if values.get(name) and not machine.is_there(values[name]):
            yield SetAside(name, shown(values[name]), f"{directory}/{default}", "no such file on this machine")
    yield from _files_and_memory(values, machine, directory)


def _files_and_memory(values: Mapping[str, str], machine: Machine, directory: str) -> Iterator[SetAside]:
    logs = PurePosixPath(values.get("log_directory", ""))
    if logs.is_absolute() and not logs.is_relative_to(directory):
        yield SetAside("log_directory", shown(str(logs)), "log", "outside the data directory")
    if values.get("stats_temp_directory") and not machine.is_there(values["stats_temp_directory"]):
        before = shown(values["stats_temp_directory"])
        yield SetAside("stats_temp_directory", before, "pg_stat_tmp", "no such directory on this machine")
    certificate = values.get("ssl_cert_file", "server.crt"), values.get("ssl_key_file", "server.key")
    if values.get("ssl", "").lower() in _ON and not all(machine.is_there(file) for file in certificate):
        yield SetAside("ssl", values["ssl"], "off", f"{' or '.join(map(shown, certificate))} does not exist here")
    if values.get("huge_pages", "").lower() in _ON:
        yield SetAside("huge_pages", values["huge_pages"], "try", "this machine may have no huge pages")
    buffers = parse_size(values.get("shared_buffers", ""), BLOCK)
    if buffers is not None and buffers > machine.memory // 2:
        now = f"{machine.memory // BUFFERS_SHARE >> 20}MB"
        yield SetAside("shared_buffers", values["shared_buffers"], now, "this machine has less memory")


def _listed(value: str) -> list[str]:
    return [one for part in value.split(",") if (one := part.strip().strip('"'))]
