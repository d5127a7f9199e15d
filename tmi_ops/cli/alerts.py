"""`tmi-ops alerts`, `tmi-ops alert test` and `tmi-ops alert resolve`."""

from __future__ import annotations

import click

from tmi_ops.cli.facts import echo_facts
from tmi_ops.cli.terminal import err, out

_SEVERITIES = ("notice", "warning", "critical")


@click.command()
@click.argument("key", required=False)
@click.option("--all", "show_all", is_flag=True, help="Also those that are over.")
@click.option("--json", "as_json", is_flag=True, help="For programs: every alert with its history.")
def alerts(key: str | None, show_all: bool, as_json: bool) -> int:
    """List the open alerts: what is at risk, what to do, and who was told. With KEY, the history of that one."""
    from tmi_ops.alerts.desk import AlertDesk
    from tmi_ops.cli import alerts_view
    from tmi_ops.settings import load_settings

    settings = load_settings()
    desk = AlertDesk(settings)
    records = desk.records()
    if as_json:
        echo_facts([record.model_dump(mode="json") for record in records])
    elif key is not None:
        found = next((record for record in records if record.alert.key == key), None)
        if found is None:
            known = ", ".join(sorted(record.alert.key for record in records)) or "none yet"
            raise click.UsageError(f"there never was an alert {key!r} in {settings.name}; known: {known}")
        alerts_view.show_history(out, found)
    else:
        alerts_view.show_alerts(out, records, settings, show_all)
    if desk.book.problem is not None:
        err.print(f"The store could not be asked: {desk.book.problem.message}", style="yellow", markup=False)
        err.print("What is shown is what this machine remembers.", style="yellow")
        return 2
    return 0


@click.group()
def alert() -> None:
    """Try the alert channels, or end an alert by hand."""


@alert.command("test")
@click.option(
    "--severity",
    type=click.Choice(_SEVERITIES),
    default="critical",
    show_default=True,
    help="Which channels are tried: those that hear of this severity.",
)
def test_channels(severity: str) -> int:
    """Send a test message to every channel that hears of a severity. Exit 1 when one did not take it."""
    from tmi_ops.alerts.desk import AlertDesk
    from tmi_ops.checks.finding import Severity
    from tmi_ops.cli import alerts_view
    from tmi_ops.errors import SettingsError
    from tmi_ops.settings import load_settings

    settings = load_settings()
    problems = AlertDesk(settings).send_test(Severity(severity))
    if not problems:
        raise SettingsError(
            f"No channel hears of {severity} alerts in {settings.name}.",
            hint="set TMI_OPS_ALERT_URLS (everything), TMI_OPS_ALERT_URLS_WARNING or TMI_OPS_ALERT_URLS_CRITICAL "
            "to addresses of apprise, for example mailto://user:password@example.com",
        )
    alerts_view.show_deliveries(out, problems)
    if settings.alerts.heartbeat_url is not None:
        out.print("The dead-man heartbeat (TMI_OPS_HEARTBEAT_URL) was not pinged: only success may do that.")
    return 1 if any(problems.values()) else 0


@alert.command()
@click.argument("key")
@click.option("--reason", required=True, help="What helped; whoever was told of the alert reads this.")
def resolve(key: str, reason: str) -> int:
    """End the alert KEY, and tell whoever was told of it. What still is so is raised again at the next look."""
    from tmi_ops.alerts.desk import AlertDesk
    from tmi_ops.alerts.record import NoticeKind
    from tmi_ops.cli import alerts_view
    from tmi_ops.settings import load_settings

    if not reason.strip():
        raise click.UsageError("--reason is empty: say what helped")
    outcome = AlertDesk(load_settings()).resolve(key, reason.strip())
    if outcome.sent is not NoticeKind.RESOLVED:
        out.print(f"No open alert has the key {key}; nothing was changed. Open ones: `tmi-ops alerts`.", markup=False)
        return 1
    out.print(f"Ended: {key}.", markup=False)
    alerts_view.show_deliveries(out, outcome.problems)
    return 0
