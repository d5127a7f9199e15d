"""`tmi-ops settings`: the settings and where they come from, without secrets."""

from __future__ import annotations

import click
from rich.table import Table

from tmi_ops.cli.terminal import format_duration, out
from tmi_ops.settings import Purpose, Settings, StoreSettings, env_file_names, load_settings, read_source


@click.command()
def settings() -> None:
    """Show the settings, without secrets."""
    current = load_settings()
    store = current.store
    rows = {
        "environment": f"{current.name} (TMI_ENV; {_files()})",
        "database": f"{current.postgres.describe()} sslmode={current.postgres.sslmode}",
        "roles": _roles(current),
        "cache": current.redis.describe() if current.redis else "not configured (REDIS_HOST, TMI_REDIS_URL)",
        "store": store.describe() if store.is_configured else "not configured: set TMI_OPS_S3_BUCKET",
        "encryption": f"age, {len(store.age_recipients)} recipient(s)" if store.age_recipients else "off",
        "signatures": _signatures(store),
        "RPO objective": format_duration(current.objectives.rpo.total_seconds()),
        "RTO objective": format_duration(current.objectives.rto.total_seconds()),
        "retention": current.retention.describe(),
        "alerts": current.alerts.describe(),
        "external monitor": "on" if current.alerts.heartbeat_url is not None else "off: set TMI_OPS_HEARTBEAT_URL",
        "home": str(current.home),
        "PostgreSQL programs": str(current.pg_bindir or "searched in the usual directories"),
        "embedded stack": "in use" if current.uses_embedded_stack else "not in use",
    }
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    out.print(table)


def _files() -> str:
    source = read_source(secrets=False)
    files = ", ".join(env_file_names(source.environment))
    return f"files {files}" if source.declared is None else f"{source.declared.file.name}, {files}"


def _roles(current: Settings) -> str:
    """Which role connects for what, if the environment names several."""
    logins = {purpose: load_settings(purpose=purpose).postgres.user for purpose in Purpose}
    if set(logins.values()) == {current.postgres.user}:
        return f"{current.postgres.user} for everything (TMI_OPS_<PURPOSE>_USER names others)"
    return ", ".join(f"{purpose}: {user}" for purpose, user in logins.items())


def _signatures(store: StoreSettings) -> str:
    made = "signed" if store.signing_key_file else "not signed"
    return f"{made}, {'checked' if store.trusted_keys else 'not checked'}: `tmi-ops keys show`"
