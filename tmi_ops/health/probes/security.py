"""Connections without TLS, and failed logins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import CannotTell, Cause, Reading, Row, answer, as_row
from tmi_ops.health.formatting import format_count, format_list
from tmi_ops.health.probe import READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.postgres.versions import MONITOR_READS_LOG
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

# The most that is read of what was logged since the last reading.
_LOG_BYTES = 4 * 1024 * 1024

_CONNECTIONS = """
SELECT quote_ident(a.usename) AS role, a.application_name AS application,
       coalesce(host(a.client_addr), 'local') AS address,
       coalesce(s.ssl, false) AS encrypted, s.version AS protocol,
       NOT (a.client_addr IS NULL OR a.client_addr <<= '127.0.0.0/8' OR a.client_addr = '::1') AS remote,
       count(*)::int AS connections
FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid)
WHERE a.backend_type IN ('client backend', 'walsender')
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY encrypted, connections DESC, 1, 2, 3
"""
_SSL = "SELECT current_setting('ssl')::boolean AS enabled"
_LOGGING = """
SELECT current_setting('logging_collector')::boolean AS collected, current_setting('lc_messages') AS language
"""
_LOG = "SELECT encode(pg_read_binary_file(%s, %s, %s), 'escape') AS text"
# A failed login is logged as FATAL. Quotes are doubled in csvlog and escaped in jsonlog.
_FAILURE = re.compile(
    r"""FATAL.*?
    (?: (?:authentication\ failed\ for|no\ pg_hba\.conf\ entry\ for\ .*?,?)\ user\ ["\\]+(?P<user>[^"\\]*)
      | role\ ["\\]+(?P<role>[^"\\]*)["\\]+\ is\ not\ permitted\ to\ log\ in
      | role\ ["\\]+(?P<unknown>[^"\\]*)["\\]+\ does\ not\ exist )""",
    re.VERBOSE,
)
_ENGLISH = ("", "C", "POSIX", "en")


@dataclass(frozen=True)
class ConnectionSecurity:
    """Connections of one role from one address. `remote`: not from the server itself."""

    role: str
    application: str
    address: str
    encrypted: bool
    protocol: str | None
    remote: bool
    connections: int


@dataclass(frozen=True)
class Encryption(Reading):
    """The open connections, the unencrypted first, and whether the server offers TLS at all."""

    connections: tuple[ConnectionSecurity, ...]
    server_speaks_tls: bool

    @property
    def exposed(self) -> tuple[ConnectionSecurity, ...]:
        return tuple(one for one in self.connections if one.remote and not one.encrypted)

    @property
    def exposed_count(self) -> int:
        return sum(one.connections for one in self.exposed)

    def numbers(self) -> Mapping[str, float]:
        encrypted = sum(one.connections for one in self.connections if one.encrypted)
        return {"encrypted connections": encrypted, "remote connections without TLS": self.exposed_count}

    def rows(self) -> Sequence[Row]:
        return [as_row(one, protocol=one.protocol or "none") for one in self.connections]


@dataclass(frozen=True)
class FailedLogins(Reading):
    """Failures by role name, from what the server logged in the last `seconds` (None: unknown)."""

    by_role: Mapping[str, int]
    seconds: float | None
    read_bytes: int
    complete: bool

    @property
    def count(self) -> int:
        return sum(self.by_role.values())

    @property
    def per_hour(self) -> float:
        """Over at least an hour, so that one mistyped password a minute ago does not look like an attack."""
        return self.count / max(1.0, (self.seconds or 0) / 3600)

    def numbers(self) -> Mapping[str, float]:
        return {"failed logins (1/h)": self.per_hour}

    def rows(self) -> Sequence[Row]:
        return [{"role": role, "failures": count} for role, count in self.by_role.items()]


def _read_encryption(session: ProbeSession) -> Encryption:
    return Encryption(session.read(ConnectionSecurity, _CONNECTIONS), session.row(_SSL)["enabled"])


def judge_encryption(reading: Encryption, thresholds: Thresholds) -> Answer:
    total = sum(one.connections for one in reading.connections)
    encrypted = sum(one.connections for one in reading.connections if one.encrypted)
    summary = (
        f"{encrypted} of {format_count(total, 'connection')} encrypted; "
        f"{reading.exposed_count} from other machines without TLS"
    )
    status = thresholds.status(reading.exposed_count)
    if status is Outcome.OK:
        return answer(status, summary)
    who = format_list([f"{one.role} from {one.address}" for one in reading.exposed])
    switch_on = () if reading.server_speaks_tls else ("ALTER SYSTEM SET ssl = on;  -- with server.crt, server.key",)
    return answer(
        status,
        f"{summary}: {who}",
        "require TLS on the server and the clients: password hashes and rows are sent in the clear",
        (
            *switch_on,
            "hostssl all all all scram-sha-256  # in pg_hba.conf, instead of host",
            "POSTGRES_SSLMODE=verify-full",
        ),
    )


def _read_failed_logins(session: ProbeSession) -> FailedLogins:
    language = str(session.row(_LOGGING)["language"])
    if re.split(r"[_.]", language)[0] not in _ENGLISH:
        raise CannotTell(
            Cause.NOT_VISIBLE,
            f"The server's log messages are not in English (lc_messages is {language}), so failed logins cannot be "
            "recognized.",
            "make the server log in English",
            ("ALTER SYSTEM SET lc_messages = 'C';", "SELECT pg_reload_conf();"),
        )
    seen = session.window
    file = seen.current.marks.get("log file")
    size = seen.current.groups["log"].values["bytes"] if "log" in seen.current.groups else None
    if file is None or size is None:
        raise _no_log(session)
    begin, seconds = 0.0, None
    if seen.last is not None and seen.last.marks.get("log file") == file and "log" in seen.last.groups:
        begin = min(seen.last.groups["log"].values["bytes"], size)
        seconds = (seen.current.taken_at - seen.last.taken_at).total_seconds()
    start = int(max(begin, size - _LOG_BYTES))
    log = session.permitted(_LOG, (file, start, int(size) - start))
    if log is None:
        raise CannotTell(
            Cause.RIGHT,
            f"The role {session.server.role} may not read the server's log.",
            "grant it the server's files (it can then read the configuration, too), or count failed logins in your log "
            "system",
            _reading_grants(session),
        )
    failures = count_failures(log[0]["text"])
    return FailedLogins(dict(failures.most_common(20)), seconds, int(size) - start, start == int(begin))


def count_failures(log: str) -> Counter[str]:
    """Failed logins by the role they tried, from a log written as stderr, csvlog or jsonlog."""
    matches = (_FAILURE.search(line) for line in log.splitlines())
    return Counter(match[match.lastgroup or 0] for match in matches if match)


def _no_log(session: ProbeSession) -> CannotTell:
    logging = session.row(_LOGGING)
    if not logging["collected"]:
        return CannotTell(
            Cause.NOT_VISIBLE,
            "The server logs to standard error (logging_collector is off), so its log cannot be read from here.",
            "count failed logins in your log system, or switch on logging_collector (needs a restart)",
            ("ALTER SYSTEM SET logging_collector = on;", "TMI_OPS_HEALTH_SKIP=failed_logins"),
        )
    return CannotTell(
        Cause.RIGHT,
        f"The role {session.server.role} may not list the server's log directory.",
        "grant the role pg_monitor",
        (session.grant("pg_monitor"), *_naming_grants(session)),
    )


def _naming_grants(session: ProbeSession) -> tuple[str, ...]:
    """Before 16, pg_monitor may not ask for the log's name; reading the log is granted along with it."""
    if session.server.major >= MONITOR_READS_LOG:
        return ()
    return (session.grant("EXECUTE ON FUNCTION pg_current_logfile()"), *_reading_grants(session))


def _reading_grants(session: ProbeSession) -> tuple[str, ...]:
    return (
        session.grant("pg_read_server_files"),
        session.grant("EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint)"),
    )


def judge_failed_logins(reading: FailedLogins, thresholds: Thresholds) -> Answer:
    when = (
        f"in the last {format_duration(reading.seconds)}"
        if reading.seconds is not None
        else "in the server's current log file"
    )
    summary = f"{format_count(reading.count, 'failed login')} {when}"
    if not reading.complete:
        summary += " (only the newest part was read)"
    status = thresholds.status(reading.per_hour)
    if status is Outcome.OK:
        return answer(status, summary)
    roles = format_list([f"{role} ({count})" for role, count in reading.by_role.items()])
    return answer(
        status,
        f"{summary}: {roles}",
        "find the addresses in the server's log: an application has an old password, or somebody guesses passwords. "
        "Then narrow pg_hba.conf",
        (
            "SELECT pg_current_logfile();",
            "SELECT line_number, type, database, user_name, address FROM pg_hba_file_rules;",
        ),
    )


SSL_CONNECTIONS = Probe(
    "ssl_connections",
    Area.SECURITY,
    "Connections without TLS",
    "connections from other machines without TLS",
    Thresholds(1, None, "connections"),
    _read_encryption,
    judge_encryption,
    needs=(READ_ALL_STATS,),
)
FAILED_LOGINS = Probe(
    "failed_logins",
    Area.SECURITY,
    "Failed logins, from the server's log",
    "failed logins since the last reading",
    Thresholds(10, 100, "1/h"),
    _read_failed_logins,
    judge_failed_logins,
)
