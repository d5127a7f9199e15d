"""`tmi-ops alerts`, `tmi-ops alert test` and `tmi-ops alert resolve`."""

from __future__ import annotations

import click

from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import json_option
from tmi_ops.cli.terminal import err, out

_SEVERITIES = ("notice", "warning", "critical")


@click.command()
@click.argument("key", required=False)
@click.option("--all", "show_all", is_flag=True, help="Also list resolved alerts.")
@json_option
def alerts(key: str | None, show_all: bool, as_json: bool) -> int:
    """List the open alerts: what is at risk, what to do, and who was notified.

    With KEY, show the history of that alert. --json prints every alert with its history.
    """
    from tmi_ops.alerts.service import AlertService
    from tmi_ops.cli import alerts_view
    from tmi_ops.settings import load_settings

    settings = load_settings()
    service = AlertService(settings)
    records = service.records()
    if as_json:
        echo_json([record.model_dump(mode="json") for record in records])
    elif key is not None:
        found = next((record for record in records if record.alert.key == key), None)
        if found is None:
            known = ", ".join(sorted(record.alert.key for record in records)) or "none yet"
            raise click.UsageError(f"No alert {key!r} in {settings.name}; known: {known}.")
        alerts_view.show_history(out, found)
    else:
        alerts_view.show_alerts(out, records, settings, show_all)
    if service.book.problem is not None:
        err.print(f"The store could not be read: {service.book.problem.message}", style="yellow", markup=False)
        err.print("Shown is this machine's own record.", style="yellow")
        return 2
    return 0


@click.group()
def alert() -> None:
    """Test the alert channels, or resolve an alert."""


@alert.command("test")
@click.option(
    "--severity",
    type=click.Choice(_SEVERITIES),
    default="critical",
    show_default=True,
    help="Severity of the test message; it goes to the channels for this severity.",
)
def test_channels(severity: str) -> int:
    """Send a test message to the alert channels. Exit code 1 if a delivery failed."""
    from tmi_ops.alerts.service import AlertService
    from tmi_ops.checks.finding import Severity
    from tmi_ops.cli import alerts_view
    from tmi_ops.errors import SettingsError
    from tmi_ops.settings import load_settings

    settings = load_settings()
    problems = AlertService(settings).send_test(Severity(severity))
    if not problems:
        raise SettingsError(
            f"No channel receives {severity} alerts in {settings.name}.",
            hint="set TMI_OPS_ALERT_URLS (all severities), TMI_OPS_ALERT_URLS_WARNING or TMI_OPS_ALERT_URLS_CRITICAL "
            "to apprise URLs, for example mailto://user:password@example.com",
        )
    alerts_view.show_deliveries(out, problems)
    if settings.alerts.heartbeat_url is not None:
        out.print("The external monitor (TMI_OPS_HEARTBEAT_URL) was not pinged: only success pings it.")
    return 1 if any(problems.values()) else 0


@alert.command()
@click.argument("key")
@click.option("--reason", required=True, help="What fixed it; sent to everyone who received the alert.")
def resolve(key: str, reason: str) -> int:
    """Resolve the alert KEY and notify everyone who received it.

    If the cause persists, the next check raises it again.
    """
    from tmi_ops.alerts.record import NoticeKind
    from tmi_ops.alerts.service import AlertService
    from tmi_ops.cli import alerts_view
    from tmi_ops.settings import load_settings

    if not reason.strip():
        raise click.UsageError("--reason is empty: say what fixed it.")
    outcome = AlertService(load_settings()).resolve(key, reason.strip())
    if outcome.sent is not NoticeKind.RESOLVED:
        out.print(
            f"No open alert has the key {key}; nothing was changed. To list them: `tmi-ops alerts`.", markup=False
        )
        return 1
    out.print(f"Resolved: {key}.", markup=False)
    alerts_view.show_deliveries(out, outcome.problems)
    return 0
