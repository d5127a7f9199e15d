"""What gives a purpose its rights, in the words of `tmi-ops roles`."""

from __future__ import annotations

from tmi_ops.access.declared import declared_access
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.settings import Purpose


def right_role(patient: Patient, purpose: Purpose, *otherwise: str) -> tuple[str, ...]:
    """What gives a purpose its rights: the role declared for it. One that is declared for something else keeps to that,
    so that `tmi-ops roles check` takes back nothing that was granted on this advice.
    """
    user, need = patient.login_for(purpose).user, purpose.need
    declared = declared_access(patient.postgres.database, patient.server_major, patient.variables)
    mine = next((role.name for role in declared.roles if role.kind == need.role), None)
    if mine is not None and (user in declared.by_name and user != mine):
        return (
            f"set {purpose.user_variable}={mine}, with its password: {user} is declared for something else",
            "tmi-ops roles apply  # where that role is missing, as a superuser",
        )
    apply = "tmi-ops roles apply  # makes the declared roles with exactly the rights they need"
    if user == mine:
        return (apply,)
    return (*otherwise, *((apply, f"set {purpose.user_variable}={mine}, with its password") if mine else ()))
