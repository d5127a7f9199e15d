"""How plans and findings about roles are shown, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tmi_ops.access.findings import Finding, PasswordSource
from tmi_ops.access.planning import Plan
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.terminal import first_of

_MARKS = {
    Severity.CRITICAL: ("✗", "red"),
    Severity.WARNING: ("!", "yellow"),
    Severity.NOTICE: ("·", "blue"),
}
# Of many statements for one finding, these tell what the others are like.
_STATEMENTS_SHOWN = 3
FINDINGS_SHOWN = 60


def show_plan(plan: Plan) -> None:
    """On stdout a script as psql takes it, passwords apart; what is left to a person as comments."""
    for one in plan.findings:
        if one.statements:
            click.secho(f"-- {one.subject}: {one.what}", dim=True)
            for statement in one.statements:
                click.echo(statement.sql)
        if not one.statements or one.advice:
            _left_to_a_person(one)
    if plan.empty:
        click.echo("-- Nothing to do: the roles are as declared." if not plan.left_out else "-- Nothing to do for us.")
    else:
        click.secho(f"{len(plan.statements)} statements, in one transaction.", err=True)


def show_applied(plan: Plan, file: Path, left: Sequence[Finding]) -> None:
    if not plan.empty:
        click.secho(f"Done: {len(plan.statements)} statements.", fg="green")
    if _generated(plan):
        click.echo(f"Generated passwords are in {file} (readable by you alone): {', '.join(_generated(plan))}")
    remaining = [one for one in left if one.severity is not Severity.NOTICE]
    if remaining:
        click.echo("Left to you:")
        show_findings(remaining)


def show_findings(findings: Sequence[Finding]) -> None:
    """The worst first, each with what cures it."""
    shown, more = first_of(findings, FINDINGS_SHOWN)
    for one in shown:
        mark, colour = _MARKS[one.severity]
        click.echo(f"{click.style(mark, fg=colour)} {click.style(one.subject, bold=True)}: {one.what}")
        for statement in one.statements[:_STATEMENTS_SHOWN]:
            click.secho(f"    {statement.sql}", dim=True)
        if len(one.statements) > _STATEMENTS_SHOWN:
            click.secho(f"    ... and {len(one.statements) - _STATEMENTS_SHOWN} more", dim=True)
        for line in one.advice:
            click.secho(f"    {line}", dim=True)
    if more:
        click.secho(more, dim=True)
    if any(one.statements for one in findings):
        click.echo("`tmi-ops roles plan` shows what would be done about it, `tmi-ops roles apply` does it.")
    elif not any(one.severity is not Severity.NOTICE for one in findings):
        click.secho("The roles are as declared.", fg="green")


def plan_facts(plan: Plan) -> dict[str, Any]:
    return {
        "statements": [statement.sql for statement in plan.statements],
        "findings": [finding_facts(one) for one in plan.findings],
    }


def applied_facts(plan: Plan, file: Path, left: Sequence[Finding]) -> dict[str, Any]:
    return {
        "applied": len(plan.statements),
        "generated_passwords": {"file": str(file), "roles": _generated(plan)} if _generated(plan) else None,
        "left": [finding_facts(one) for one in left],
    }


def check_facts(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [finding_facts(one) for one in findings]}


def finding_facts(one: Finding) -> dict[str, Any]:
    return {
        "severity": one.severity.value,
        "subject": one.subject,
        "what": one.what,
        "statements": [statement.sql for statement in one.statements],
        "advice": list(one.advice),
    }


def _left_to_a_person(one: Finding) -> None:
    click.secho(f"-- left to you: {one.subject}: {one.what}", fg="yellow")
    for line in one.advice:
        click.secho(f"--   {line}", fg="yellow")


def _generated(plan: Plan) -> list[str]:
    return [
        str(statement.password_of)
        for statement in plan.statements
        if statement.password_from is PasswordSource.GENERATED
    ]
