"""Checks of the server and TMI's database: version, programs, privileges, tables, extensions, connections."""

from __future__ import annotations

from tmi_ops.automation.switch import read_automation
from tmi_ops.checks.finding import Answer, critical, fine, not_applicable, unknown, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext, rows_of
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.refusals import explain_refusal
from tmi_ops.diagnosis.roles import right_role
from tmi_ops.diagnosis.sql import RESTART, identifier
from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import found_programs, programs_at_least, server_programs
from tmi_ops.postgres.rights import lacking
from tmi_ops.postgres.versions import EMBEDDED, NEWEST, OLDEST, READ_ALL_DATA
from tmi_ops.profile import Profile
from tmi_ops.settings import Purpose, read_variables

# Shares of the connections that max_connections leaves to ordinary roles.
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


_MAY_WRITE_HEARTBEATS = """
SELECT coalesce(has_table_privilege(beats, 'SELECT') AND has_table_privilege(beats, 'INSERT'),
                has_schema_privilege('tmi_ops', 'CREATE'))
FROM to_regclass('tmi_ops.heartbeat') AS beats
"""
_MAY_CREATE_SCHEMA = "SELECT has_database_privilege(current_database(), 'CREATE')"


def look_at_version(context: DiagnosisContext) -> Answer:
    version, in_recovery = context.ask("SELECT current_setting('server_version'), pg_is_in_recovery()")
    major = context.server_major
    seen = f"PostgreSQL {version}{', a standby (read-only)' if in_recovery else ''}"
    if major < OLDEST:
        return critical(
            seen,
            f"tmi_ops supports PostgreSQL {OLDEST} to {NEWEST}; {major} no longer gets security fixes",
            f"upgrade the server to {NEWEST - 1} (with pg_upgrade, or restore a logical backup into a new one)",
        )
    if major > NEWEST:
        return warning(seen, f"tmi_ops was tested with PostgreSQL up to {NEWEST} only", "look for a newer tmi_ops")
    return fine(seen)


def look_at_client_programs(context: DiagnosisContext) -> Answer:
    bindir = context.settings.pg_bindir
    try:
        programs = programs_at_least(context.server_major, bindir)
    except ProgramError as error:
        return _programs_missing(context, error)
    return fine(f"pg_dump {programs.version} in {programs.bindir}")


def _programs_missing(context: DiagnosisContext, error: ProgramError) -> Answer:
    major, bindir = context.server_major, context.settings.pg_bindir
    try:
        newest = max((programs.major for programs in found_programs(bindir)), default=None)
    except ProgramError:
        newest = None
    where = f"TMI_OPS_PG_BINDIR ({bindir})" if bindir else "this machine"
    cause = (
        f"{where} has no PostgreSQL programs"
        if newest is None
        else f"{where} has the programs of PostgreSQL {newest}, and pg_dump refuses a newer server ({major})"
    )
    return critical(
        error.message,
        f"{cause}, so logical backups cannot be taken",
        *([f"unset TMI_OPS_PG_BINDIR, or set it to the bin directory of PostgreSQL {major}"] if bindir else []),
        f"apt-get install postgresql-client-{major}  # from apt.postgresql.org, if the distribution lacks it",
        *([f"pip install 'tmi-ops[stack]'  # includes PostgreSQL {EMBEDDED}"] if major <= EMBEDDED else []),
    )


def look_at_server_programs(context: DiagnosisContext) -> Answer:
    major = context.server_major
    try:
        programs = server_programs(major, context.settings.pg_bindir)
    except ProgramError as error:
        return warning(
            error.message,
            f"`tmi-ops verify` and point-in-time recovery need the server programs of PostgreSQL {major} here",
            f"apt-get install postgresql-{major}",
            f"set TMI_OPS_PG_BINDIR=/usr/lib/postgresql/{major}/bin  # if they are installed elsewhere",
        )
    return fine(f"initdb and postgres {programs.version} in {programs.bindir}")


def look_at_tables(context: DiagnosisContext) -> Answer:
    if not context.settings.profile.has_models:
        return _look_at_wanted(context, context.settings.profile)
    from tmi_ops.schema.models import Base

    needed = set(Base.metadata.tables)
    rows = rows_of(context.database, "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")
    missing = sorted(needed - {name for (name,) in rows})
    if not missing:
        return fine(f"all {len(needed)} tables of TMI exist; `tmi-ops check` compares every column")
    some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    everything = len(missing) == len(needed)
    return warning(
        f"{len(missing)} of {len(needed)} tables of TMI are missing: {some}",
        "the migration has never run in this database (is POSTGRES_DB right?)"
        if everything
        else "the database belongs to an older TMI, or a table was dropped",
        "tmi-ops migrate --dry-run  # shows what would be done",
        "tmi-ops migrate",
    )


def _look_at_wanted(context: DiagnosisContext, profile: Profile) -> Answer:
    if not profile.tables:
        return not_applicable(f"the profile {profile.name} names no tables")
    rows = rows_of(
        context.database,
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    there = {name for (name,) in rows}
    missing = [table for table in profile.tables if (table if "." in table else f"public.{table}") not in there]
    if not missing:
        return fine(f"all {len(profile.tables)} tables named by the profile {profile.name} exist")
    return warning(
        f"{len(missing)} of {len(profile.tables)} tables named by the profile {profile.name} are missing: "
        f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
        "POSTGRES_DB may name the wrong database, or the profile may be the wrong one",
    )


def look_at_logins(context: DiagnosisContext) -> Answer:
    """Whether every login that the environment configures for a purpose can connect."""
    users: dict[str, Purpose] = {}
    for purpose in Purpose:
        users.setdefault(context.login_for(purpose).user, purpose)
    for user, purpose in users.items():
        attempt = context.connect_as(purpose)
        if isinstance(attempt, str):
            refused = explain_refusal(attempt, context.login_for(purpose))
            cause = refused.finding.cause if refused else "the server refuses the connection"
            steps = refused.finding.advice.steps if refused else ()
            # The explanation names POSTGRES_USER's password, but this purpose has its own.
            mine = purpose.user_variable.removesuffix("_USER")
            return critical(
                f"{user}, the role that {purpose.need.does}, cannot connect: {attempt.splitlines()[-1]}",
                cause.replace("POSTGRES_PASSWORD", f"{mine}_PASSWORD"),
                *(step.replace("POSTGRES_PASSWORD", f"{mine}_PASSWORD") for step in steps),
            )
    if len(users) == 1:
        return fine(f"{next(iter(users))} is used for everything")
    return fine(f"{', '.join(users)} can connect")


def look_at_rights(context: DiagnosisContext) -> Answer:
    """Whether the backup role can read every table and sequence."""
    user = context.login_for(Purpose.BACKUP).user
    rows = rows_of(
        context.database,
        _UNREADABLE,
        user,
    )
    if not rows:
        return fine(f"{user} can read every table and sequence")
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
        f"{user} may not read {len(rows)} tables and sequences, the first of them {'.'.join(rows[0])}",
        f"the role {user} lacks SELECT on them (or USAGE on the schema), so pg_dump would fail",
        *right_role(
            context,
            Purpose.BACKUP,
            f"as a superuser or the owner, in {context.postgres.database}:",
            *([f"GRANT pg_read_all_data TO {role};"] if context.server_major >= READ_ALL_DATA else per_schema),
        ),
    )


def look_at_statistics_right(context: DiagnosisContext) -> Answer:
    user = context.login_for(Purpose.MONITOR).user
    missing = lacking(context.server, user, Purpose.MONITOR.need.rights)
    if not missing:
        return fine(f"{user} can read all statistics")
    return warning(
        f"{user} is not a member of {missing[0].right}",
        "it sees only its own sessions, so `tmi-ops health` and the checks below are incomplete",
        *right_role(context, Purpose.MONITOR, *(lack.statement for lack in missing)),
    )


def look_at_heartbeat_right(context: DiagnosisContext) -> Answer:
    """Whether the role may write heartbeats: into our schema, or it may create that schema."""
    user = context.login_for(Purpose.HEARTBEAT).user
    session = context.connect_as(Purpose.HEARTBEAT)
    if isinstance(session, str):  # the link `logins` reports it
        return unknown(f"{user} cannot connect")
    ours = rows_of(session, "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'tmi_ops'")
    if ours and not ours[0][0]:
        may = False
    else:
        ((may,),) = rows_of(session, _MAY_WRITE_HEARTBEATS if ours else _MAY_CREATE_SCHEMA)
    if may:
        return fine(f"{user} may write heartbeats")
    if not _is_automated(context):
        return not_applicable(f"{user} may not write heartbeats, and no schedule here writes any")
    return warning(
        f"{user} may not write heartbeats",
        "the schema tmi_ops belongs to another role, or does not exist and this role may not create it; without "
        "heartbeats, drills measure lost data less exactly",
        *right_role(context, Purpose.HEARTBEAT),
    )


def _is_automated(context: DiagnosisContext) -> bool:
    variables = read_variables(context.variables, context.directory)
    return read_automation(context.settings.environment, variables).running


def look_at_extensions(context: DiagnosisContext) -> Answer:
    preloaded, created = context.ask(
        "SELECT current_setting('shared_preload_libraries'), "
        "EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')"
    )
    if "pg_stat_statements" not in preloaded:
        libraries = ", ".join(part for part in (preloaded.strip(), "pg_stat_statements") if part)
        return warning(
            "pg_stat_statements is not loaded (TMI's schema itself needs no extension)",
            "no statistics of queries are collected, so slow queries cannot be found",
            f"ALTER SYSTEM SET shared_preload_libraries = {libraries};",
            RESTART,
            "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;",
        )
    if not created:
        return warning(
            f"pg_stat_statements is loaded, but the extension does not exist in {context.postgres.database}",
            "statistics are collected, but there is no view to read them",
            "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;",
        )
    return fine("pg_stat_statements is active; TMI's schema itself needs no extension")


def look_at_connections(context: DiagnosisContext) -> Answer:
    most, reserved, used, idle = context.ask(
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
        "connections are nearly used up; then TMI and backups are refused",
        "SELECT usename, application_name, state, count(*), max(now() - state_change) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' GROUP BY 1, 2, 3 ORDER BY 4 DESC;",
        "reduce the pools: servers x pool size must stay below max_connections (guide: 25 open, 5 idle each)",
        f"ALTER SYSTEM SET max_connections = {most * 2};",
        RESTART,
    )


DATABASE_LINKS = (
    Link("version", "server version", Area.DATABASE, look_at_version, ("authentication",)),
    Link("connections", "connections", Area.DATABASE, look_at_connections, ("version",)),
    Link("client-programs", "PostgreSQL client programs", Area.DATABASE, look_at_client_programs, ("version",)),
    Link("server-programs", "PostgreSQL server programs", Area.DATABASE, look_at_server_programs, ("client-programs",)),
    Link("logins", "logins for each purpose", Area.DATABASE, look_at_logins, ("database",)),
    Link("rights", "privileges for backups", Area.DATABASE, look_at_rights, ("database",)),
    Link("tables", "the application's tables", Area.DATABASE, look_at_tables, ("database",)),
    Link("statistics", "privileges for monitoring", Area.DATABASE, look_at_statistics_right, ("version",)),
    Link(
        "beats", "privileges for heartbeats", Area.DATABASE, look_at_heartbeat_right, ("database", "tables", "logins")
    ),
    Link("extensions", "extensions", Area.DATABASE, look_at_extensions, ("database",)),
)
