"""Reads the facts, the declared access and the passwords, for a plan or a check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row, dict_row
from pydantic import SecretStr

from tmi_ops.access.declared import SCHEMA, DeclaredAccess, RoleKind, declared_access
from tmi_ops.access.drift import check_access
from tmi_ops.access.facts import (
    AccessFacts,
    DefaultGrant,
    Grant,
    HbaRule,
    Membership,
    ObjectFacts,
    ObjectKind,
    PasswordKind,
    RoleFacts,
    Session,
)
from tmi_ops.access.findings import Drift
from tmi_ops.access.passwords import Passwords, known_passwords, password_file
from tmi_ops.access.planning import Plan, plan_access
from tmi_ops.access.rights import lacking_rights
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.rights import Lack
from tmi_ops.settings import Settings

_SERVER = """
SELECT current_setting('server_version_num')::int AS version_num, current_database()::text AS database,
       current_user::text AS role, current_setting('ssl')::boolean AS ssl,
       current_setting('password_encryption') AS password_encryption,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'USAGE')) AS role_memberships,
       ARRAY(SELECT rolname::text FROM pg_roles
             WHERE pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') AND rolname <> current_user) AS role_admin_of,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions
"""
_ROLES = """
SELECT oid, rolname::text AS name, rolsuper AS superuser, rolcanlogin AS login, rolreplication AS replication,
       rolcreaterole AS createrole, rolcreatedb AS createdb, rolbypassrls AS bypassrls, oid = 10 AS bootstrap,
       coalesce(rolvaliduntil <= now(), false) AS expired, coalesce(rolconfig, '{}') AS settings
FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname
"""
_VERIFIERS = "SELECT rolname::text, rolpassword FROM pg_authid"
_MEMBERSHIPS = """
SELECT member, pg_get_userbyid(roleid)::text AS role, pg_get_userbyid(grantor)::text AS grantor
FROM pg_auth_members ORDER BY 2
"""
# Without the owner's own entries: they follow the ownership.
_OBJECTS = """
SELECT 'DATABASE' AS kind, quote_ident(datname) AS sql, datdba AS owner, false AS follows,
       coalesce(datacl, acldefault('d', datdba)) AS acl, 'pg_database'::regclass AS catalogue, oid
FROM pg_database WHERE datname = current_database()
UNION ALL
SELECT 'SCHEMA', quote_ident(nspname), nspowner, false, coalesce(nspacl, acldefault('n', nspowner)),
       'pg_namespace'::regclass, oid
FROM pg_namespace WHERE nspname = %(schema)s
UNION ALL
SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%%I.%%I', nspname, relname), relowner,
       EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
               AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i') AND relkind = 'S'),
       coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)),
       'pg_class'::regclass, c.oid
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
SELECT 'ROUTINE', format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)), proowner, false,
       NULL, 'pg_proc'::regclass, p.oid
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %(schema)s
UNION ALL
SELECT 'TYPE', format('%%I.%%I', nspname, typname), typowner, false, NULL, 'pg_type'::regclass, t.oid
FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
WHERE nspname = %(schema)s AND typtype IN ('e', 'd', 'r')
"""
_WITH_GRANTS = """
SELECT o.kind, o.sql, pg_get_userbyid(o.owner)::text AS owner, o.follows, g.*
FROM ({objects}) o
LEFT JOIN LATERAL (
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS grantee,
           privilege_type AS privilege, is_grantable AS grantable, NULL::text AS column
    FROM aclexplode(o.acl) WHERE grantee <> o.owner
    UNION ALL
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END, privilege_type, is_grantable,
           quote_ident(attname)
    FROM pg_attribute, aclexplode(attacl)
    WHERE o.catalogue = 'pg_class'::regclass AND attrelid = o.oid AND attacl IS NOT NULL AND grantee <> o.owner
) g ON true
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.catalogue AND d.objid = o.oid AND d.deptype = 'e')
ORDER BY o.kind, o.sql
"""
_OF_EXTENSIONS = """
SELECT count(*)::int AS relations
FROM pg_depend JOIN pg_class c ON c.oid = objid JOIN pg_namespace n ON n.oid = relnamespace
WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND nspname = %(schema)s
"""
_DEFAULTS = """
SELECT pg_get_userbyid(defaclrole)::text AS creator, defaclnamespace = 0 AS everywhere, privilege_type AS privilege,
       CASE defaclobjtype WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, is_grantable AS grantable,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS grantee
FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl)
WHERE defaclobjtype IN ('r', 'S') AND grantee <> defaclrole AND coalesce(nspname = %(schema)s, true)
ORDER BY 1, 4, 6, 3
"""
_SESSIONS = """
SELECT usename::text AS role, rolsuper AS superuser, coalesce(application_name, '') AS application,
       coalesce(host(client_addr), 'local') AS address, s.ssl AS encrypted, count(*)::int AS connections,
       NOT (client_addr IS NULL OR client_addr <<= '127.0.0.0/8' OR client_addr = '::1') AS remote
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = usesysid LEFT JOIN pg_stat_ssl s USING (pid)
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
GROUP BY 1, 2, 3, 4, 5, 7 ORDER BY 1, 3, 4
"""
_HBA = """
SELECT line_number AS line, coalesce(type, '') AS type, coalesce(database, '{}') AS databases,
       coalesce(user_name, '{}') AS users, address, coalesce(auth_method, '') AS method, error
FROM pg_hba_file_rules ORDER BY line_number
"""


def read_access(connection: psycopg.Connection[Any], schema: str = SCHEMA) -> AccessFacts:
    """Read the access facts of the connected database. What the role may not read is None or NOT_VISIBLE.

    Raises:
        DatabaseError: the connection is in a transaction already.
    """
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise DatabaseError("Roles must be read in a separate transaction, but one is open.")
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        server = _rows(connection, _SERVER)[0]
        sees_sessions = server.pop("sees_sessions")
        return AccessFacts(
            **{**server, **{name: frozenset(server[name]) for name in ("role_memberships", "role_admin_of")}},
            roles=_roles(connection),
            objects=_objects(connection, schema),
            extension_relations=_rows(connection, _OF_EXTENSIONS, schema=schema)[0]["relations"],
            defaults=tuple(
                DefaultGrant(**{**row, "kind": ObjectKind(row["kind"])})
                for row in _rows(connection, _DEFAULTS, schema=schema)
            ),
            sessions=(
                tuple(connection.cursor(row_factory=class_row(Session)).execute(_SESSIONS)) if sees_sessions else None
            ),
            hba=_hba(connection),
        )


def _roles(connection: psycopg.Connection[Any]) -> tuple[RoleFacts, ...]:
    verifiers = _permitted(connection, _VERIFIERS)
    kept = None if verifiers is None else {row["rolname"]: row["rolpassword"] for row in verifiers}
    member_of: dict[int, list[Membership]] = defaultdict(list)
    for row in _rows(connection, _MEMBERSHIPS):
        member_of[row["member"]].append(Membership(row["role"], row["grantor"]))
    roles = []
    for row in _rows(connection, _ROLES):
        settings = dict(setting.split("=", 1) for setting in row.pop("settings"))
        verifier = None if kept is None else kept.get(row["name"])
        roles.append(
            RoleFacts(
                memberships=tuple(member_of[row.pop("oid")]),
                settings=settings,
                verifier=SecretStr(verifier) if verifier else None,
                password=PasswordKind.NOT_VISIBLE if kept is None else _kind_of(verifier),
                **row,
            )
        )
    return tuple(roles)


def _kind_of(verifier: str | None) -> PasswordKind:
    if not verifier:
        return PasswordKind.NONE
    return PasswordKind.SCRAM if verifier.startswith("SCRAM-SHA-256$") else PasswordKind.MD5


def _objects(connection: psycopg.Connection[Any], schema: str) -> tuple[ObjectFacts, ...]:
    found: dict[tuple[str, str], ObjectFacts] = {}
    grants: dict[tuple[str, str], set[Grant]] = defaultdict(set)
    query = _WITH_GRANTS.replace("{objects}", _OBJECTS)
    for row in connection.cursor(row_factory=dict_row).execute(query.encode(), {"schema": schema}):
        place = (row["kind"], row["sql"])
        found[place] = ObjectFacts(ObjectKind(row["kind"]), row["sql"], row["owner"], follows=row["follows"])
        if row["grantee"] is not None:
            grants[place].add(Grant(row["grantee"], row["privilege"], row["grantable"], row["column"]))
    return tuple(
        ObjectFacts(one.kind, one.sql, one.owner, frozenset(grants[place]), one.follows) for place, one in found.items()
    )


def _hba(connection: psycopg.Connection[Any]) -> tuple[HbaRule, ...] | None:
    rows = _permitted(connection, _HBA)
    if rows is None:
        return None
    return tuple(HbaRule(**{**row, "databases": tuple(row["databases"]), "users": tuple(row["users"])}) for row in rows)


def _rows(connection: psycopg.Connection[Any], query: LiteralString, **parameters: Any) -> Sequence[dict[str, Any]]:
    return connection.cursor(row_factory=dict_row).execute(query, parameters or None).fetchall()


def _permitted(connection: psycopg.Connection[Any], query: LiteralString) -> Sequence[dict[str, Any]] | None:
    """None if the role lacks the right."""
    try:
        with connection.transaction():
            return _rows(connection, query)
    except psycopg.errors.InsufficientPrivilege:
        return None


@dataclass(frozen=True)
class Inspection:
    """The state of the server. `file`: the file of generated passwords."""

    facts: AccessFacts
    declared: DeclaredAccess
    known: Passwords
    file: Path

    def plan(self, reset: frozenset[RoleKind] = frozenset()) -> Plan:
        return plan_access(self.facts, self.declared, self.known, reset)

    def lacking(self, planned: Plan) -> tuple[Lack, ...]:
        """The rights that our role lacks to execute the plan."""
        return lacking_rights(self.facts, self.declared, planned)

    def check(self) -> tuple[Drift, ...]:
        return check_access(self.facts, self.declared, self.known)


def inspect_access(connection: psycopg.Connection[Any], settings: Settings, variables: Mapping[str, str]) -> Inspection:
    """Inspect the connected database.

    Raises:
        SettingsError: a role name is invalid, or others can read the password file.
        DatabaseError: the facts could not be read.
    """
    facts = read_access(connection)
    file = password_file(settings.home, settings.environment)
    return Inspection(
        facts, declared_access(facts.database, facts.major, variables), known_passwords(variables, file), file
    )
