"""`tmi-ops roles`: plan, apply and check the declared roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import json_option, yes_option

if TYPE_CHECKING:
    from tmi_ops.access.inspection import Inspection
    from tmi_ops.access.planning import Plan
    from tmi_ops.settings import PostgresSettings

SOMETHING_TO_DO = 1
ROLES = ("owner", "app", "readonly", "backup", "monitor")


@click.group()
def roles() -> None:
    """Plan, apply and check the roles of TMI's database.

    Five roles: owner (migrates), app (SELECT, INSERT, UPDATE, DELETE and sequences, nothing else), readonly, backup
    and monitor. Their names are tmi_<role> or TMI_OPS_ROLE_NAME_<ROLE>. Passwords are taken from
    TMI_OPS_ROLE_PASSWORD_<ROLE>, or generated into a file in TMI_OPS_HOME that only you can read.
    """


@roles.command()
@json_option
def plan(as_json: bool) -> int:
    """Print the SQL that `tmi-ops roles apply` would run, and the rights that POSTGRES_USER lacks for it.

    Changes nothing. Exit codes: 0 nothing to do, 1 something to do, 2 error.
    """
    from tmi_ops.cli.roles_view import plan_facts, show_plan

    _, inspection = _inspect()
    planned = inspection.plan()
    if as_json:
        echo_json(plan_facts(planned, inspection))
    else:
        show_plan(planned, inspection)
    return 0 if planned.empty else SOMETHING_TO_DO


@roles.command()
@yes_option
@click.option(
    "--reset-password",
    "reset",
    multiple=True,
    type=click.Choice(ROLES),
    help="Set a new password for this role: that of its variable, or a generated one. Repeatable.",
)
@json_option
def apply(yes: bool, reset: tuple[str, ...], as_json: bool) -> int:
    """Create and change roles as declared, in one transaction.

    Shows the plan and asks first. Starts only if POSTGRES_USER has all the rights that the plan needs. Roles that are
    not declared are not changed. Passwords are never sent to the server, only SCRAM verifiers computed here. --json
    needs --yes.

    Exit codes: 0 done, 1 done but `tmi-ops roles check` still has findings, 2 error.
    """
    from tmi_ops.access.declared import RoleKind
    from tmi_ops.access.drift import drifted
    from tmi_ops.access.rights import require_rights
    from tmi_ops.cli.roles_view import applied_facts, plan_facts, show_applied, show_plan

    if as_json and not yes:
        raise click.UsageError("--json needs --yes.")
    postgres, inspection = _inspect()
    planned = inspection.plan(frozenset(RoleKind(one) for one in reset))
    if not as_json:
        show_plan(planned, inspection)
    if not planned.empty:
        require_rights(inspection.facts, inspection.declared, planned)
        if not yes:
            click.confirm(f"Apply this to {postgres.describe()}?", abort=True, err=True)
        _apply(postgres, inspection, planned)
    _, after = _inspect()
    left = after.check()
    if as_json:
        echo_json({**plan_facts(planned, inspection), **applied_facts(planned, after.file, left)})
    else:
        show_applied(planned, after.file, left)
    return SOMETHING_TO_DO if drifted(left) else 0


@roles.command()
@json_option
def check(as_json: bool) -> int:
    """Compare the server with the declared roles. Changes nothing.

    Finds extra grants, superusers used by applications, CREATE for PUBLIC, md5 passwords, connections without TLS,
    missing lines in pg_hba.conf, and missing roles, owners and default privileges. What POSTGRES_USER may not read is
    reported as not checked.

    Exit codes: 0 notices at most, 1 drift, 2 error.
    """
    from tmi_ops.access.drift import drifted
    from tmi_ops.cli.roles_view import check_facts, show_drift

    _, inspection = _inspect()
    findings = inspection.check()
    if as_json:
        echo_json(check_facts(findings))
    else:
        show_drift(findings)
    return SOMETHING_TO_DO if drifted(findings) else 0


def _inspect() -> tuple[PostgresSettings, Inspection]:
    from tmi_ops.access.inspection import inspect_access
    from tmi_ops.error_codes import Code
    from tmi_ops.errors import SettingsError
    from tmi_ops.postgres.connections import connect
    from tmi_ops.settings import load_settings, read_variables

    settings = load_settings()
    if not settings.profile.has_roles:
        raise SettingsError(
            f"The profile {settings.profile.name} declares no roles, so there is nothing to plan, apply or check.",
            hint="`tmi-ops doctor` shows which rights tmi_ops itself lacks",
            code=Code.NOT_IN_PROFILE,
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
