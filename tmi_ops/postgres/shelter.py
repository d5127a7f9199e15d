"""Isolates a server that we only inspect: a scratch cluster, a recovered copy.

Its data may come from a store that others can write, and its settings name archives, standbys, publishers, libraries
and files of another machine. So the settings here are given on the command line, which overrides every file; settings
of a database or a role are overridden by the options of our sessions.

Source: https://www.postgresql.org/docs/current/runtime-config.html, and guc.h for the order of sources.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.unprivileged import ServerIdentity

PORT = 5432  # of the socket's name only
# Which servers know a setting: the first and the last major version.
_ALWAYS = (0, 1000)
_SINCE_14, _SINCE_15, _SINCE_17, _SINCE_18 = (14, 1000), (15, 1000), (17, 1000), (18, 1000)

_SHELTER: Mapping[str, tuple[str, tuple[int, int]]] = {
    # No connections from outside, no files outside.
    "listen_addresses": ("", _ALWAYS),
    "port": (str(PORT), _ALWAYS),
    "unix_socket_group": ("", _ALWAYS),
    "unix_socket_permissions": ("0700", _ALWAYS),
    "bonjour": ("off", _ALWAYS),
    "ssl": ("off", _ALWAYS),
    "external_pid_file": ("", _ALWAYS),
    "logging_collector": ("off", _ALWAYS),
    "log_destination": ("stderr", _ALWAYS),
    "log_directory": ("log", _ALWAYS),
    "promote_trigger_file": ("", (0, 15)),
    "stats_temp_directory": ("pg_stat_tmp", (0, 14)),
    # No archiving, no replication, no waiting for standbys.
    "archive_mode": ("off", _ALWAYS),
    "archive_command": ("", _ALWAYS),
    "archive_library": ("", _SINCE_15),
    "archive_timeout": ("0", _ALWAYS),
    "restore_command": ("", _ALWAYS),
    "archive_cleanup_command": ("", _ALWAYS),
    "recovery_end_command": ("", _ALWAYS),
    "primary_conninfo": ("", _ALWAYS),
    "primary_slot_name": ("", _ALWAYS),
    "recovery_target": ("", _ALWAYS),
    "recovery_target_lsn": ("", _ALWAYS),
    "recovery_target_name": ("", _ALWAYS),
    "recovery_target_time": ("", _ALWAYS),
    "recovery_target_xid": ("", _ALWAYS),
    "recovery_min_apply_delay": ("0", _ALWAYS),
    "synchronous_standby_names": ("", _ALWAYS),
    "synchronized_standby_slots": ("", _SINCE_17),
    "sync_replication_slots": ("off", _SINCE_17),
    # A subscription would take changes away from the original database.
    "max_logical_replication_workers": ("0", _ALWAYS),
    # Only PostgreSQL's own code and explicitly allowed libraries are loaded.
    "session_preload_libraries": ("", _ALWAYS),
    "local_preload_libraries": ("", _ALWAYS),
    "dynamic_library_path": ("$libdir", _ALWAYS),
    "extension_control_path": ("$system", _SINCE_18),
    "jit": ("off", _ALWAYS),
    "jit_provider": ("llvmjit", _ALWAYS),
    "event_triggers": ("off", _SINCE_17),
    # It starts with the memory of this machine, and always behaves the same.
    "huge_pages": ("off", _ALWAYS),
    "shared_buffers": ("256MB", _ALWAYS),
    "restart_after_crash": ("off", _ALWAYS),
    "hot_standby": ("on", _ALWAYS),
    "autovacuum": ("off", _ALWAYS),
    "summarize_wal": ("off", _SINCE_17),
    "checkpoint_timeout": ("1h", _ALWAYS),
    "max_wal_size": ("2GB", _ALWAYS),
    # A recovered copy may have tablespaces in place; we create none.
    "allow_in_place_tablespaces": ("on", _SINCE_15),
    "temp_tablespaces": ("", _ALWAYS),
    "default_tablespace": ("", _ALWAYS),
    "default_transaction_read_only": ("off", _ALWAYS),
    "statement_timeout": ("0", _ALWAYS),
    "lock_timeout": ("0", _ALWAYS),
    "transaction_timeout": ("0", _SINCE_17),
    "idle_in_transaction_session_timeout": ("0", _ALWAYS),
    "idle_session_timeout": ("0", _SINCE_14),
    "lc_messages": ("C", _ALWAYS),
    "timezone": ("UTC", _ALWAYS),
    "log_timezone": ("UTC", _ALWAYS),
    "log_line_prefix": ("%m [%p] ", _ALWAYS),
    "log_statement": ("none", _ALWAYS),
    "log_min_messages": ("warning", _ALWAYS),
    "log_min_error_statement": ("error", _ALWAYS),
    "log_error_verbosity": ("default", _ALWAYS),
    # Damage must cause errors.
    "zero_damaged_pages": ("off", _ALWAYS),
    "ignore_checksum_failure": ("off", _ALWAYS),
    "ignore_invalid_pages": ("off", _ALWAYS),
    "ignore_system_indexes": ("off", _ALWAYS),
}

# Those that ALTER ROLE or ALTER DATABASE may have set too, by who may override them in a session.
_SESSION: Mapping[str, tuple[str, tuple[int, int]]] = {
    **{
        name: _SHELTER[name]
        for name in (
            "local_preload_libraries",
            "default_transaction_read_only",
            "statement_timeout",
            "lock_timeout",
            "transaction_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
        )
    },
    "synchronous_commit": ("local", _ALWAYS),
}
_SESSION_OF_SUPERUSER: Mapping[str, tuple[str, tuple[int, int]]] = {
    **{name: _SHELTER[name] for name in ("session_preload_libraries", "dynamic_library_path", "event_triggers")},
    # Switches event triggers off for our DDL; newer servers have event_triggers.
    "session_replication_role": ("replica", (0, 16)),
}


def sheltered_settings(major: int, libraries: Sequence[str] = ()) -> dict[str, str]:
    """The settings for a server's command line.

    Args:
        major: its version.
        libraries: libraries that it loads when it starts, because a person allowed them: some extensions need that.
    """
    return {**_known_to(major, _SHELTER), "shared_preload_libraries": ", ".join(libraries)}


def session_options(major: int, *, superuser: bool) -> str:
    """libpq's `options` for our sessions on such a server.

    Args:
        superuser: whether the role is one; only superusers may switch off the libraries and triggers of their sessions.
    """
    wanted = {**_SESSION, **(_SESSION_OF_SUPERUSER if superuser else {})}
    return " ".join(f"-c {name}={value}" for name, value in _known_to(major, wanted).items())


def reader_settings(major: int) -> dict[str, str]:
    """Settings that a superuser sets for another role, which cannot set them itself."""
    return _known_to(major, _SESSION_OF_SUPERUSER)


def _known_to(major: int, settings: Mapping[str, tuple[str, tuple[int, int]]]) -> dict[str, str]:
    return {name: value for name, (value, (first, last)) in settings.items() if first <= major <= last}


@contextlib.contextmanager
def socket_directory(identity: ServerIdentity) -> Iterator[Path]:
    """A private directory for a server's socket.

    In the system's temporary directory, because a socket's path may have only 107 bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix="tmi-ops-"))
    try:
        identity.take_over(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# Runs the profile's SQL checks on a copy; they may call functions of the source, so it is not a superuser.
READER = "tmi_ops_reader"


def write_access(
    hba: Path,
    ident: Path,
    identity: ServerIdentity,
    role: str,
    *,
    replication: bool = False,
    networks: Sequence[str] = (),
) -> None:
    """Write pg_hba.conf and pg_ident.conf so that only our own account may connect, through a socket in a private
    directory: as `role` and, while the profile's checks run, as READER.

    In a user namespace the server cannot identify us; there only the directory protects it.

    Args:
        replication: also allow replication connections, as for a base backup.
        networks: CIDR ranges from which others may connect with a password.

    Raises:
        ProgramError: the role's name, which may come from a backup, is not printable.
    """
    try:
        account = None if identity.namespace else pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        account = None
    method = "trust" if account is None else "peer map=ours"
    lines = [f"local {database} all {method}\n" for database in ("all", *(["replication"] if replication else []))]
    lines += [f"host all all {network} scram-sha-256\n" for network in networks]
    names = "".join(f'ours "{account}" {_quoted(name)}\n' for name in (role, READER))
    identity.write(hba, "".join(lines).encode())
    identity.write(ident, b"" if account is None else names.encode())


def _quoted(role: str) -> str:
    """A name for pg_ident.conf."""
    if not role.isprintable():
        raise ProgramError(f"{role!r} is not a valid role name for pg_ident.conf.")
    return '"' + role.replace('"', '""') + '"'
