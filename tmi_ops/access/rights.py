"""The rights that our role needs to execute a plan, checked before the first statement: one refusal would roll back the
transaction.

Source: https://www.postgresql.org/docs/current/role-attributes.html and the pages of CREATE ROLE, ALTER ROLE, GRANT
and ALTER TABLE, of 13 to 19. The rights of roles without superuser changed in 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tmi_ops.access.declared import DeclaredAccess
from tmi_ops.access.facts import AccessFacts
from tmi_ops.access.findings import Change, Drift, Touched
from tmi_ops.access.planning import Plan
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.rights import Lack
from tmi_ops.postgres.versions import GRANTORS
from tmi_ops.schema.dialect import quote

A_SUPERUSER = "SUPERUSER"
# Only a role that has these attributes may set them for others; before 16 the first three need a superuser.
_OF_SUPERUSERS = frozenset({"SUPERUSER", "REPLICATION", "BYPASSRLS"})
_OF_WHO_HAS_THEM = frozenset({"REPLICATION", "BYPASSRLS", "CREATEDB"})


@dataclass(frozen=True)
class _Asking:
    """Our role, and the roles that the plan has created when a statement runs."""

    facts: AccessFacts
    owner: str
    made: frozenset[str]

    @property
    def major(self) -> int:
        return self.facts.major

    def has(self, attribute: str) -> bool:
        ours = self.facts.named(self.facts.role)
        return ours is not None and bool(getattr(ours, attribute.lower()))

    def is_admin_of(self, role: str) -> bool:
        return role in self.facts.role_admin_of or role in self.made

    def becomes_member_of_owner(self) -> bool:
        """Whether the plan makes us a member, if we have the right."""
        return self.owner in self.facts.role_memberships or not _lacks_for_member(self, self.owner)


def lacking_rights(facts: AccessFacts, declared: DeclaredAccess, plan: Plan) -> tuple[Lack, ...]:
    """The rights that our role lacks for the statements of the plan, each once. Pure."""
    if facts.superuser:
        return ()
    made = frozenset(one.touched.role for one in plan.drifts if one.touched and one.touched.change is Change.NEW_ROLE)
    asking = _Asking(facts, declared.owner.name, made)
    lacks = [lack for one in plan.drifts if one.statements for lack in _lacks(asking, one)]
    return tuple(dict.fromkeys(lacks))


def require_rights(facts: AccessFacts, declared: DeclaredAccess, plan: Plan) -> None:
    """Raises:
    DatabaseError: a statement of the plan would be refused.
    """
    if lacks := lacking_rights(facts, declared, plan):
        statements = " ".join(lack.statement for lack in lacks if lack.statement)
        as_whom = "connect as a superuser, or as the managed server's administrator"
        raise DatabaseError(
            f"{facts.role} cannot do this: it lacks {', '.join(lack.right for lack in lacks)}.",
            hint=f"{as_whom}, or grant the rights: {statements}" if statements else as_whom,
            code=Code.ROLES_RIGHTS,
        )


def _lacks(asking: _Asking, one: Drift) -> Iterator[Lack]:
    touched = one.touched
    if touched is None:
        return
    if touched.change is Change.NEW_ROLE:
        yield from _lacks_for_attributes(asking, touched)
    elif touched.change is Change.ROLE:
        yield from _lacks_for_role(asking, touched)
    elif touched.change is Change.MEMBER:
        yield from _lacks_for_member(asking, touched.role)
    elif touched.change is Change.OWNER:
        yield from _lacks_for_owner(asking, touched)
    elif not asking.becomes_member_of_owner():
        yield _rights_of(asking, asking.owner)


def _lacks_for_attributes(asking: _Asking, touched: Touched) -> Iterator[Lack]:
    """To create a role with these attributes, or to change them."""
    if not asking.has("CREATEROLE"):
        yield _attribute(asking, "CREATEROLE")
    of_superusers = _OF_SUPERUSERS if asking.major < GRANTORS else frozenset({"SUPERUSER"})
    if touched.attributes & of_superusers:
        yield Lack(A_SUPERUSER)
    elif asking.major >= GRANTORS:
        for attribute in sorted(touched.attributes & _OF_WHO_HAS_THEM):
            if not asking.has(attribute):
                yield _attribute(asking, attribute)


def _lacks_for_role(asking: _Asking, touched: Touched) -> Iterator[Lack]:
    found = asking.facts.named(touched.role)
    if touched.role == asking.facts.role and not touched.attributes:
        return  # a role may set its own password and settings
    # Only a superuser may change a superuser, and before 16 also a role with REPLICATION.
    out_of_reach = found and (found.superuser or (asking.major < GRANTORS and found.replication))
    if out_of_reach:
        yield Lack(A_SUPERUSER)
        return
    yield from _lacks_for_attributes(asking, touched)
    if asking.major >= GRANTORS and not asking.is_admin_of(touched.role):
        yield _admin_option(asking, touched.role)


def _lacks_for_member(asking: _Asking, role: str) -> tuple[Lack, ...]:
    found = asking.facts.named(role)
    if found is not None and found.superuser:
        return (Lack(A_SUPERUSER),)
    if asking.is_admin_of(role) or (asking.major < GRANTORS and asking.has("CREATEROLE")):
        return ()
    return (_admin_option(asking, role),)


def _lacks_for_owner(asking: _Asking, touched: Touched) -> Iterator[Lack]:
    if touched.role not in asking.facts.role_memberships:
        yield _rights_of(asking, touched.role)
    if not asking.becomes_member_of_owner():
        yield _rights_of(asking, asking.owner)
    if "CREATEDB" in touched.attributes and not asking.has("CREATEDB"):
        yield _attribute(asking, "CREATEDB")


def _attribute(asking: _Asking, attribute: str) -> Lack:
    return Lack(attribute, f"ALTER ROLE {quote(asking.facts.role)} {attribute};")


def _admin_option(asking: _Asking, role: str) -> Lack:
    statement = f"GRANT {quote(role)} TO {quote(asking.facts.role)} WITH ADMIN OPTION;"
    return Lack(f"ADMIN OPTION on {role}", statement)


def _rights_of(asking: _Asking, role: str) -> Lack:
    """No GRANT is given for a superuser, or for a role that does not exist yet."""
    found = asking.facts.named(role)
    given = found is not None and not found.superuser
    return Lack(f"the rights of {role}", f"GRANT {quote(role)} TO {quote(asking.facts.role)};" if given else "")
