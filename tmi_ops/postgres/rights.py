"""Whether a role has what its purpose needs, asked before work begins; and what gives it the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

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
    """A right that is missing, in words, and what a superuser types to give it; empty: `tmi-ops roles apply` does."""

    right: str
    statement: str = ""


def lacking(connection: psycopg.Connection[Any], user: str, rights: Rights) -> tuple[Lack, ...]:
    """What `user` lacks of these rights in the connected database; of reading, only what a membership tells.

    Raises:
        DatabaseError: there is no such role.
        psycopg.Error: the server could not be asked.
    """
    row = connection.execute(_ROLE, (user,)).fetchone()
    if row is None:
        raise DatabaseError(
            f"There is no role {user} on the server.", hint="tmi-ops roles apply  # makes the declared roles"
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
    """See that a role may do what is about to begin.

    Raises:
        DatabaseError: it may not; nothing was begun.
    """
    missing = lacking(connection, user, purpose.need.rights)
    if missing:
        how = " ".join(lack.statement for lack in missing if lack.statement)
        raise DatabaseError(
            f"{user} {purpose.need.does}, and lacks {', '.join(lack.right for lack in missing)}.",
            detail="Nothing was begun.",
            hint=f"as a superuser: {how}" if how else f"set {purpose.user_variable} to a role that has it",
        )
