"""Advice on how to give a purpose its privileges, consistent with `tmi-ops roles`."""

from __future__ import annotations

from tmi_ops.access.declared import declared_access
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.settings import Purpose


def right_role(context: DiagnosisContext, purpose: Purpose, *otherwise: str) -> tuple[str, ...]:
    """How to give a purpose its privileges: with the role declared for it. A role that is declared for another purpose
    gets no further grants, as `tmi-ops roles check` would object to them.
    """
    user, need = context.login_for(purpose).user, purpose.need
    declared = declared_access(context.postgres.database, context.server_major, context.variables)
    mine = next((role.name for role in declared.roles if role.kind == need.role), None)
    if mine is not None and (user in declared.by_name and user != mine):
        return (
            f"set {purpose.user_variable}={mine}, with its password: {user} is declared for another purpose",
            "tmi-ops roles apply  # as a superuser, if that role does not exist",
        )
    apply = "tmi-ops roles apply  # creates the declared roles with exactly the privileges they need"
    if user == mine:
        return (apply,)
    return (*otherwise, *((apply, f"set {purpose.user_variable}={mine}, with its password") if mine else ()))
