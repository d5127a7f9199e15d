"""The configuration of a cluster that was recovered onto another machine. Pure.

Only settings on a list of harmless ones are carried over from the source. Not carried over: paths, addresses,
certificates, libraries, hooks and standbys of the other machine, archiving (two servers must not archive to one place),
and unknown settings. Anyone who can write to the backup could have written these files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tmi_ops.postgres.configuration import quoted_value
from tmi_ops.postgres.sizes import BLOCK, parse_size

# Settings that change how a server works but cannot make it load, run, read, write or connect to anything. Full names,
# or a prefix with a star. A setting of a later PostgreSQL is not carried over until it is listed here.
_CARRIED = (
    "array_nulls", "authentication_timeout", "client_connection_check_interval", "compute_query_id",
    "default_text_search_config", "lc_monetary", "lc_numeric", "lc_time",
    "autovacuum", "autovacuum_*", "backend_flush_after", "backslash_quote",
    "bgwriter_*", "block_*", "bytea_output", "check_function_bodies", "checkpoint_*", "client_encoding",
    "client_min_messages", "commit_delay", "commit_siblings", "commit_timestamp_buffers", "constraint_exclusion",
    "cpu_*", "cursor_tuple_fraction", "datestyle", "db_user_namespace", "deadlock_timeout", "debug_pretty_print",
    "default_statistics_target", "default_toast_compression", "default_transaction_*", "effective_*", "enable_*",
    "escape_string_warning", "exit_on_error", "extra_float_digits", "from_collapse_limit", "fsync",
    "full_page_writes", "geqo", "geqo_*", "gin_*", "hash_mem_multiplier", "hot_standby", "hot_standby_feedback",
    "idle_in_transaction_session_timeout", "idle_replication_slot_timeout", "idle_session_timeout", "intervalstyle",
    "io_combine_limit", "io_max_combine_limit", "io_max_concurrency", "io_method", "io_workers", "jit",
    "jit_*_cost", "join_collapse_limit", "lock_timeout", "log_autovacuum_min_duration", "log_checkpoints",
    "log_connections", "log_disconnections", "log_duration", "log_error_verbosity", "log_hostname",
    "log_line_prefix", "log_lock_*", "log_min_*", "log_parameter_*", "log_recovery_conflict_waits",
    "log_replication_commands", "log_startup_progress_interval", "log_statement", "log_statement_*",
    "log_temp_files", "log_timezone", "log_transaction_sample_rate", "logical_decoding_work_mem",
    "maintenance_io_concurrency", "maintenance_work_mem", "max_*", "min_*", "multixact_*", "notify_buffers",
    "old_snapshot_threshold", "parallel_*", "password_encryption", "plan_cache_mode", "quote_all_identifiers",
    "random_page_cost", "recursive_worktable_factor", "reserved_connections", "restart_after_crash", "row_security",
    "scram_iterations", "seq_page_cost", "serializable_buffers", "shared_buffers", "standard_conforming_strings",
    "statement_timeout", "stats_fetch_consistency", "subtransaction_buffers", "summarize_wal",
    "superuser_reserved_connections", "synchronize_seqscans", "synchronous_commit", "tcp_*", "temp_buffers",
    "temp_file_limit", "timezone", "trace_sort", "track_*", "transaction_buffers", "transaction_timeout",
    "transform_null_equals", "update_process_title", "vacuum_*", "wal_buffers", "wal_compression",
    "wal_decode_buffer_size", "wal_init_zero", "wal_keep_*", "wal_level", "wal_log_hints", "wal_receiver_*",
    "wal_recycle", "wal_retrieve_retry_interval", "wal_sender_timeout", "wal_skip_threshold",
    "wal_summary_keep_time", "wal_sync_method", "wal_writer_*", "work_mem", "xmlbinary", "xmloption",
)  # fmt: skip
# The value of a carried setting must not look like a path, an address or a program.
_FREE_TEXT = ("log_line_prefix", "timezone", "log_timezone")
_PLAIN_VALUE = re.compile(r"'(?:[^'\\/$`]|'')*'|[\w.+:-]+")
BUFFERS_SHARE = 4  # a quarter of the memory, if the source's value exceeds half of it


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and the networks (CIDR) from which it accepts password logins."""

    port: int
    addresses: str
    allowed: tuple[str, ...] = ()
    sockets: str = ""


@dataclass(frozen=True)
class Configuration:
    """`left_out`: names of the source's settings that were not carried over."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...]


def serving_configuration(
    source: Mapping[str, str], needed: Mapping[str, str], listening: Listening, memory: int
) -> Configuration:
    """Decide which settings to write.

    Args:
        source: settings of the source, values as written.
        needed: settings from the source's control file with which the cluster's WAL was written.
        memory: bytes of this machine.
    """
    carried = {name: value for name, value in source.items() if _is_carried(name, value)}
    left_out = sorted(name for name in source if name not in carried)
    buffers = parse_size(carried.get("shared_buffers", ""), BLOCK)
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
        "# For this machine.",
        *(f"{name} = {quoted_value(value)}" for name, value in own.items()),
    ]
    return Configuration(tuple(lines), tuple(left_out))


def access_lines(listening: Listening, superuser: str) -> tuple[str, ...]:
    """pg_hba.conf: the server's own account as superuser through the socket, everyone else with a password."""
    hosts: Sequence[str] = ("127.0.0.1/32", "::1/128", *listening.allowed)
    return (
        f'local all "{superuser}" peer map=tmi_ops_owner',
        "local all all scram-sha-256",
        *(f"host all all {host} scram-sha-256" for host in hosts),
    )


def _is_carried(name: str, value: str) -> bool:
    known = any(re.fullmatch(pattern.replace("*", r"\w+"), name) for pattern in _CARRIED)
    return known and (name in _FREE_TEXT or _PLAIN_VALUE.fullmatch(value) is not None)
