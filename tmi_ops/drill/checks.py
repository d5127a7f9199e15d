"""The checks of the running copy. A check that cannot be run says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from tmi_ops.backup.fingerprint import differing_tables, fingerprint_tables
from tmi_ops.backup.snapshot import list_logged_tables, list_unlogged, pin_text_output
from tmi_ops.checks.finding import Answer, not_applicable, unknown
from tmi_ops.drill.chain import Bound, HeartbeatRow, check_chain
from tmi_ops.drill.copy import time_limit
from tmi_ops.drill.findings import failed, passed
from tmi_ops.drill.heartbeat import read_chain
from tmi_ops.drill.source import SchemaReading
from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.own_checks import ask_of_copy, ask_own_checks
from tmi_ops.postgres.programs import Programs, plain_environment, program_too_slow
from tmi_ops.postgres.versions import AMCHECK_PROGRAM
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.profile import SqlCheck
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.execution import Recovered
from tmi_ops.schema.findings import Deviation
from tmi_ops.schema.models import Base
from tmi_ops.schema.seed import NATURAL_KEYS, SeedRow, seed_rows
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.restore_points import RestorePoint

CORRUPTION_FOUND = 2
FINDINGS_SHOWN = 20


def check_relations(address: PostgresSettings, programs: Programs) -> Answer:
    """Check every table and B-tree index of every database, and that each row is in each of its indexes.

    Source: https://www.postgresql.org/docs/current/app-pgamcheck.html
    """
    if programs.major < AMCHECK_PROGRAM:
        return unknown(f"pg_amcheck needs PostgreSQL {AMCHECK_PROGRAM} or newer.")
    argv = [
        str(programs.path("pg_amcheck")),
        "--all",
        "--install-missing",
        "--heapallindexed",
        f"--jobs={os.cpu_count() or 1}",
    ]
    limit = time_limit(_size(address))
    try:
        done = subprocess.run(
            argv,
            env=plain_environment(libpq_environment(address)),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return unknown(program_too_slow(argv[0], limit).message)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode == 0:
        closed = _closed_databases(address)
        detail = "Every table and B-tree index of every database is sound, and every row is in its indexes."
        return passed(f"{detail} Not checked, as they refuse connections: {', '.join(closed)}." if closed else detail)
    if done.returncode == CORRUPTION_FOUND:
        return failed("pg_amcheck found corruption.", _shown(said))
    return unknown(f"pg_amcheck could not run: {' / '.join(said[-3:]) or f'exit code {done.returncode}'}.")


def _closed_databases(address: PostgresSettings) -> list[str]:
    """The databases that pg_amcheck silently skips, such as a damaged one that was set aside."""
    query = "SELECT datname FROM pg_database WHERE NOT datallowconn AND datname <> 'template0' ORDER BY datname"
    with connect(address) as connection:
        return [name for (name,) in connection.execute(query).fetchall()]


def _size(address: PostgresSettings) -> int:
    with connect(address) as connection:
        row = connection.execute("SELECT sum(pg_database_size(oid)) FROM pg_database").fetchone()
    return int(row[0]) if row else 0


def check_schema(copy: SchemaReading, source: SchemaReading | None) -> Answer:
    """Check TMI's schema in the copy. What the live database lacks, too, is no fault of the copy."""
    errors = copy.validation.at("ERROR")
    known = {(one.rule, one.table, one.object) for one in source.validation.at("ERROR")} if source else set()
    own = [_sentence(one) for one in errors if (one.rule, one.table, one.object) not in known]
    tables = _count(len(copy.validation.tables), "table")
    if not _is_of_tmi(copy) and source is not None and not _is_of_tmi(source):
        return not_applicable(f"Neither the live database nor the copy has TMI's tables ({tables}).")
    if own:
        return failed(f"{_count(len(own), 'problem')} in the schema that TMI needs.", _shown(own))
    if errors:
        detail = f"{tables}; every problem found is in the live database, too."
        return passed(detail, _shown([_sentence(one) for one in errors]))
    return passed(f"{tables}; nothing that TMI needs is missing.")


def check_built_in_rows(copy: SchemaReading, source: SchemaReading | None) -> Answer:
    """Check the rows that TMI needs before its first request."""
    lacking = {_describe_seed(row) for row in copy.state.absent_seed}
    lacked = {_describe_seed(row) for row in source.state.absent_seed} if source else set()
    own = sorted(lacking - lacked)
    if own:
        return failed(f"{_count(len(own), 'built-in row')} {'is' if len(own) == 1 else 'are'} missing.", _shown(own))
    if source and len(copy.state.absent_seed) == len(source.state.absent_seed) == len(seed_rows()):
        return not_applicable("Neither the live database nor the copy has any of them.")
    if lacking:
        return passed("Every row that is missing is missing in the live database, too.", _shown(sorted(lacking)))
    return passed("All are present.")


def check_own(
    copy: PostgresSettings, checks: Sequence[SqlCheck], programs: Programs, source: PostgresSettings
) -> Answer:
    """Run the profile's checks, each under its name. What fails in the live database, too, is no fault of the copy.

    Args:
        copy: its superuser's login; the checks themselves run as a read-only role.
        source: a login for the live database.
    """
    answers = ask_of_copy(copy, programs.major, checks)
    wrong = [one for one in answers if one.outcome == "failed"]
    known = _fails_there_too(source, [check for check in checks if check.name in {one.name for one in wrong}])
    own = [one for one in wrong if one.name not in known]
    said = [f"{one.name}: {one.text}" for one in answers if one.outcome != "passed"]
    asked = _count(len(answers), "application check")
    if own:
        return failed(f"{asked}; {len(own)} failed.", said)
    if any(one.outcome == "unknown" for one in answers):
        return unknown(f"{asked}; not all could be run: {'; '.join(said)}")
    if known:
        return passed(f"{asked}; what failed fails in the live database, too.", said)
    return passed(f"{asked}; all passed.", [f"{one.name}: {one.text}" for one in answers])


def _fails_there_too(source: PostgresSettings, checks: Sequence[SqlCheck]) -> set[str]:
    try:
        return {one.name for one in ask_own_checks(source, checks) if one.outcome == "failed"}
    except OpsError:
        return set()


def bound_of(recovered: Recovered) -> Bound:
    """Where the copy must end, for the heartbeat check."""
    plan = recovered.plan
    if plan.target.time is not None:
        return Bound(time=plan.target.time, reached_at=recovered.last_commit_at)
    return Bound(lsn=plan.stop_lsn or recovered.lsn, reached_at=recovered.last_commit_at)


def check_heartbeat(address: PostgresSettings, bound: Bound, known: Sequence[HeartbeatRow] | None) -> Answer:
    """Check that nothing before the target is missing and nothing after it is present.

    Args:
        known: the live database's heartbeats; None when it could not be read.
    """
    beats = read_chain(address) or []
    wrong = check_chain(beats, bound, known or ())
    if wrong:
        return failed("The heartbeat chain does not match the target.", _shown(wrong))
    if not beats:
        return unknown(
            "No heartbeat was written before the target. To write one a minute, run `tmi-ops heartbeat --every 60`."
        )
    detail = f"{_count(len(beats), 'heartbeat')} without a gap, the last one {beats[-1].describe()}."
    if known is None:
        note = "The live server could not be read, so heartbeats lost at the end would not be noticed."
        return passed(detail, (note,))
    later = [beat for beat in known if beat.id > beats[-1].id]
    if later:
        detail += f" The live database has {_count(len(later), 'later one')}; none of them is in the copy."
    return passed(detail)


def check_fingerprints(
    address: PostgresSettings, recovered: Recovered, point: RestorePoint | None, report: Report
) -> Answer:
    """Compare every table's content with the restore point that the target names."""
    target = recovered.plan.target
    if target.name is None:
        return not_applicable("The target is not a restore point.")
    if point is None or not point.fingerprints:
        return unknown("The restore point has no fingerprints; `tmi-ops restore-point NAME` records them.")
    stop = recovered.plan.stop_lsn
    if stop is None or not parse_lsn(point.after_lsn) <= stop <= parse_lsn(point.lsn):
        return unknown(f"The fingerprints belong to another restore point of that name, at LSN {point.lsn}.")
    with connect(address.model_copy(update={"database": point.database})) as connection:
        connection.execute("SET statement_timeout = 0")
        pin_text_output(connection)
        came = fingerprint_tables(connection, list_logged_tables(connection), report)
        unlogged = list_unlogged(connection)
    # Records of earlier releases list UNLOGGED tables, too.
    was = {name: fingerprint for name, fingerprint in point.fingerprints.items() if name not in unlogged}
    different = differing_tables(was, came)
    if different:
        return failed(
            f"{_count(len(different), 'table')} with other content than at {point.name!r}.", _shown(different)
        )
    rows = sum(one.rows for one in was.values())
    return passed(f"{_count(len(came), 'table')} and {rows:,} rows, all as they were at {point.name!r}.")


def _is_of_tmi(reading: SchemaReading) -> bool:
    return any(name in Base.metadata.tables for name in reading.validation.tables)


def _sentence(finding: Deviation) -> str:
    where = ".".join(part for part in (finding.table, finding.object) if part)
    return f"{where}: {finding.message}" if where else finding.message


def _describe_seed(row: SeedRow) -> str:
    values = dict(row.values)
    return f"{row.table}: {', '.join(str(values[name]) for name in NATURAL_KEYS[row.table])}"


def _shown(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - FINDINGS_SHOWN
    return (*lines[:FINDINGS_SHOWN], *((f"and {more} more",) if more > 0 else ()))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
