"""Objects that the declared owner should own but does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tmi_ops.access.declared import DeclaredAccess
from tmi_ops.access.facts import AccessFacts, ObjectFacts, ObjectKind
from tmi_ops.access.findings import Change, Drift, Touched, drift
from tmi_ops.checks.finding import Severity
from tmi_ops.schema.dialect import quote

# From 15 on, this role owns the schema public; its only member is the database's owner.
DATABASE_OWNER = "pg_database_owner"
# ALTER TABLE changes the owner of views and sequences, too.
_ALTER = {ObjectKind.SEQUENCE: "TABLE"}


def ownership_findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """One finding for each kind of object and owner."""
    strangers: dict[tuple[ObjectKind, str], list[ObjectFacts]] = defaultdict(list)
    for one in facts.objects:
        if one.owner != declared.owner.name and not one.follows and not _is_owners_anyway(one):
            strangers[one.kind, one.owner].append(one)
    # The database and the schema first: the new owner of an object must have the right to create it.
    for (kind, owner), things in sorted(strangers.items(), key=lambda one: tuple(ObjectKind).index(one[0][0])):
        role = facts.named(owner)
        of_declared = owner in declared.by_name
        yield drift(
            Severity.CRITICAL if of_declared else Severity.WARNING,
            things[0].sql if len(things) == 1 else f"{len(things)} {kind.lower()}s",
            f"{_belongs(len(things))} to {owner}, not to {declared.owner.name}"
            + (f": {owner} may alter and drop {_it(len(things))}" if of_declared else ""),
            *(f"ALTER {_ALTER.get(kind, kind)} {one.sql} OWNER TO {quote(declared.owner.name)};" for one in things),
            by_hand=[
                f"if TMI itself connects as {owner}, let it connect as its own role before you apply, or make it the "
                f"owner: TMI_OPS_ROLE_NAME_OWNER={owner}"
            ]
            if role is not None and role.login and not role.superuser and not of_declared
            else (),
            touched=Touched(Change.OWNER, owner, frozenset({"CREATEDB"} if kind is ObjectKind.DATABASE else ())),
        )


def _is_owners_anyway(one: ObjectFacts) -> bool:
    return one.kind is ObjectKind.SCHEMA and one.owner == DATABASE_OWNER


def _belongs(count: int) -> str:
    return "belongs" if count == 1 else "belong"


def _it(count: int) -> str:
    return "it" if count == 1 else "them"
