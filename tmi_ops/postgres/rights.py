"""Whether a role has the rights its purpose needs, checked before work starts, and how to grant missing ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.versions import READ_ALL_DATA
from tmi_ops.settings.purposes import READS_ALL, Purpose, Rights

_ROLE = """
SELECT rolsuper, rolreplication, rolcreatedb,
       ARRAY(SELECT p.rolname::text FROM pg_roles p WHERE p.rolname ~ '^pg_' AND pg_has_role(r.oid, p.oid, 'USAGE')),
       pg_has_role(r.oid, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE')
FROM pg_roles r WHERE rolname = %s
"""


@dataclass(frozen=True)
class Lack:
    """A missing right, and the statement with which a superuser grants it; empty: `tmi-ops roles apply` grants it."""

    right: str
    statement: str = ""


def lacking(connection: psycopg.Connection[Any], user: str, rights: Rights) -> tuple[Lack, ...]:
    """The rights that `user` lacks in the connected database. The right to read is judged by membership only.

    Raises:
        DatabaseError: there is no such role.
        psycopg.Error: the query failed.
    """
    row = connection.execute(_ROLE, (user,)).fetchone()
    if row is None:
        raise DatabaseError(
            f"The role {user} does not exist.", hint="create the declared roles with `tmi-ops roles apply`"
        )
    superuser, replicates, creates, memberships, owns = row
    if superuser:
        return ()
    major = connection.info.server_version // 10000
    return tuple(_lacks(sql.Identifier(user).as_string(None), rights, major, replicates, creates, memberships, owns))


def _lacks(
    role: str, rights: Rights, major: int, replicates: bool, creates: bool, memberships: list[str], owns: bool
) -> Iterator[Lack]:
    if rights.replication and not replicates:
        yield Lack("REPLICATION", f"ALTER ROLE {role} REPLICATION;")
    if rights.createdb and not creates:
        yield Lack("CREATEDB", f"ALTER ROLE {role} CREATEDB;")
    wanted = [*rights.member_of, *([READS_ALL] if rights.reads_all and major >= READ_ALL_DATA else [])]
    for name in wanted:
        if name not in memberships:
            yield Lack(name, f"GRANT {name} TO {role};")
    if rights.owns and not owns:
        yield Lack("the rights of the database's owner")


def require_rights(connection: psycopg.Connection[Any], user: str, purpose: Purpose) -> None:
    """Check that a role has the rights for what is about to start.

    Raises:
        DatabaseError: it has not; nothing was started.
    """
    missing = lacking(connection, user, purpose.need.rights)
    if missing:
        how = " ".join(lack.statement for lack in missing if lack.statement)
        raise DatabaseError(
            f"{user} {purpose.need.does}, and lacks {', '.join(lack.right for lack in missing)}.",
            detail="Nothing was started.",
            hint=f"as a superuser: {how}" if how else f"set {purpose.user_variable} to a role that has it",
            code=Code.RIGHTS_MISSING,
        )
