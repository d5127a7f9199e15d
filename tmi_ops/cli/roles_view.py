"""How plans and findings about roles look in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tmi_ops.access.findings import Drift, PasswordSource
from tmi_ops.access.inspection import Inspection
from tmi_ops.access.planning import Plan
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.checks_view import finding_facts, show_comment, show_findings
from tmi_ops.cli.terminal import out


def show_plan(plan: Plan, inspection: Inspection) -> None:
    """Print a script for psql, without passwords, to stdout; what is left to a person is in comments."""
    for one in plan.drifts:
        if one.statements:
            show_comment(f"{one.subject}: {one.what}")
            for statement in one.statements:
                click.echo(statement.sql)
        if not one.statements or one.by_hand:
            _left_to_a_person(one)
    if plan.empty:
        click.echo(
            "-- Nothing to do: the roles are as declared." if not plan.left_out else "-- Nothing that tmi_ops can do."
        )
    else:
        click.secho(f"{len(plan.statements)} statements, in one transaction.", err=True)
    for lack in inspection.lacking(plan):
        click.secho(f"{inspection.facts.role} cannot do this: it lacks {lack.right}.", fg="red", err=True)
        if lack.statement:
            click.secho(f"  as a superuser: {lack.statement}", fg="red", err=True)


def show_applied(plan: Plan, file: Path, left: Sequence[Drift]) -> None:
    if not plan.empty:
        click.secho(f"Done: {len(plan.statements)} statements.", fg="green")
    if _generated(plan):
        click.echo(f"Generated passwords are in {file} (only you can read it): {', '.join(_generated(plan))}")
    remaining = [one for one in left if one.severity is not Severity.NOTICE]
    if remaining:
        click.echo("Left to you:")
        show_drift(remaining)


def show_drift(drifts: Sequence[Drift]) -> None:
    """The worst first, each with the fix."""
    show_findings([one.finding for one in drifts])
    if any(one.statements for one in drifts):
        out.print("To see the fix: `tmi-ops roles plan`. To apply it: `tmi-ops roles apply`.")
    elif not any(one.severity is not Severity.NOTICE for one in drifts):
        out.print("[green]The roles are as declared.[/]")


def plan_facts(plan: Plan, inspection: Inspection) -> dict[str, Any]:
    return {
        "role": inspection.facts.role,
        "lacking": [{"right": lack.right, "statement": lack.statement} for lack in inspection.lacking(plan)],
        "statements": [statement.sql for statement in plan.statements],
        "findings": [finding_facts(one.finding) for one in plan.drifts],
    }


def applied_facts(plan: Plan, file: Path, left: Sequence[Drift]) -> dict[str, Any]:
    return {
        "applied": len(plan.statements),
        "generated_passwords": {"file": str(file), "roles": _generated(plan)} if _generated(plan) else None,
        "left": [finding_facts(one.finding) for one in left],
    }


def check_facts(drifts: Sequence[Drift]) -> dict[str, Any]:
    return {"findings": [finding_facts(one.finding) for one in drifts]}


def _left_to_a_person(one: Drift) -> None:
    show_comment(f"left to you: {one.subject}: {one.what}", "yellow")
    for line in one.by_hand:
        show_comment(f"  {line}", "yellow")


def _generated(plan: Plan) -> list[str]:
    return [
        str(statement.password_of)
        for statement in plan.statements
        if statement.password_from is PasswordSource.GENERATED
    ]
