"""`tmi-ops roles`: who may do what, planned, brought about and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.facts import echo_facts

if TYPE_CHECKING:
    from tmi_ops.access.inspection import Inspection
    from tmi_ops.access.planning import Plan
    from tmi_ops.settings import PostgresSettings

SOMETHING_TO_DO = 1
ROLES = ("owner", "app", "readonly", "backup", "monitor")


@click.group()
def roles() -> None:
    """Who may do what on TMI's database.

    Five roles: the owner that migrates, the app (SELECT, INSERT, UPDATE, DELETE and sequences, nothing else), readonly,
    backup and monitor. Names: tmi_<role>, or TMI_OPS_ROLE_NAME_<ROLE>. Passwords: TMI_OPS_ROLE_PASSWORD_<ROLE>, else
    generated into a file below TMI_OPS_HOME that only you can read.
    """


@roles.command()
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(as_json: bool) -> int:
    """Print the SQL that would bring about the declared roles, and the rights that POSTGRES_USER lacks for it. Changes
    nothing.

    Exit codes: 0 nothing to do, 1 something to do, 2 could not look.
    """
    from tmi_ops.cli.roles_view import plan_facts, show_plan

    _, inspection = _inspect()
    planned = inspection.plan()
    if as_json:
        echo_facts(plan_facts(planned, inspection))
    else:
        show_plan(planned, inspection)
    return 0 if planned.empty else SOMETHING_TO_DO


@roles.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--reset-password",
    "reset",
    multiple=True,
    type=click.Choice(ROLES),
    help="Give this role a new password: of its variable, else generated. Repeat.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON; needs --yes.")
def apply(yes: bool, reset: tuple[str, ...], as_json: bool) -> int:
    """Bring about the declared roles: all of it in one transaction, or nothing.

    Shows the plan and asks first; begins nothing that POSTGRES_USER may not end. Roles nobody declared stay as they
    are. Only SCRAM verifiers computed here reach the server, never a password.

    Exit codes: 0 done, 1 done but `tmi-ops roles check` still finds something, 2 could not.
    """
    from tmi_ops.access.declared import RoleKind
    from tmi_ops.access.drift import drifted
    from tmi_ops.access.rights import require_rights
    from tmi_ops.cli.roles_view import applied_facts, plan_facts, show_applied, show_plan

    if as_json and not yes:
        raise click.UsageError("--json needs --yes: nobody could be asked.")
    postgres, inspection = _inspect()
    planned = inspection.plan(frozenset(RoleKind(one) for one in reset))
    if not as_json:
        show_plan(planned, inspection)
    if not planned.empty:
        require_rights(inspection.facts, inspection.declared, planned)
        if not yes:
            click.confirm(f"Do this on {postgres.describe()}?", abort=True, err=True)
        _apply(postgres, inspection, planned)
    _, after = _inspect()
    left = after.check()
    if as_json:
        echo_facts({**plan_facts(planned, inspection), **applied_facts(planned, after.file, left)})
    else:
        show_applied(planned, after.file, left)
    return SOMETHING_TO_DO if drifted(left) else 0


@roles.command()
@click.option("--json", "as_json", is_flag=True, help="Print every finding as JSON.")
def check(as_json: bool) -> int:
    """Find where the server has drifted from the declared roles. Changes nothing.

    Extra grants, superusers that applications use, CREATE for everybody, md5 passwords, connections without TLS, lines
    that pg_hba.conf lacks, roles, owners and default privileges that are missing. What POSTGRES_USER may not see is
    said to be unseen.

    Exit codes: 0 nothing but notices, 1 drift, 2 could not look.
    """
    from tmi_ops.access.drift import drifted
    from tmi_ops.cli.roles_view import check_facts, show_drift

    _, inspection = _inspect()
    findings = inspection.check()
    if as_json:
        echo_facts(check_facts(findings))
    else:
        show_drift(findings)
    return SOMETHING_TO_DO if drifted(findings) else 0


def _inspect() -> tuple[PostgresSettings, Inspection]:
    from tmi_ops.access.inspection import inspect_access
    from tmi_ops.errors import SettingsError
    from tmi_ops.postgres.connections import connect
    from tmi_ops.settings import load_settings, read_variables

    settings = load_settings()
    if not settings.profile.has_roles:
        raise SettingsError(
            f"The profile {settings.profile.name} declares no roles, so there is nothing to plan, apply or check.",
            hint="`tmi-ops doctor` says which rights tmi_ops itself lacks",
        )
    with connect(settings.postgres) as connection:
        return settings.postgres, inspect_access(connection, settings, read_variables())


def _apply(postgres: PostgresSettings, inspection: Inspection, planned: Plan) -> None:
    from tmi_ops.access.execution import apply_access
    from tmi_ops.access.passwords import passwords_to_set
    from tmi_ops.cli.environment import reporting
    from tmi_ops.postgres.connections import connect

    passwords = passwords_to_set(planned.statements, inspection.known, inspection.file)
    with reporting() as report, connect(postgres) as connection:
        apply_access(connection, planned, inspection.declared, passwords, report)
