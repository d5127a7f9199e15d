"""How the cache looks in a terminal, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tmi_ops.cache.census import KeyCount
from tmi_ops.cache.checking import CacheCheck
from tmi_ops.cache.reconciliation import Reconciled, Reconciliation
from tmi_ops.cache.rules import UNKNOWN, Action
from tmi_ops.cache.server import CacheServer
from tmi_ops.cli.checks_view import finding_facts, show_findings
from tmi_ops.cli.terminal import out
from tmi_ops.text import format_duration, format_size

# On a narrower terminal the table has no explanations.
_WIDE = 100
_ACTION_STYLES = {Action.DROP: "red", Action.KEEP: "green"}


def show_check(seen: CacheCheck) -> None:
    """The server, the keys as a table, then the findings."""
    server = seen.server
    out.say(Text(f"{seen.address}: {server.name} {server.version}, up {format_duration(server.uptime_s)}"))
    for name, value in _server_lines(server):
        out.say(Text(f"  {name:<12}{value}"))
    out.print()
    _show_census(seen)
    out.print()
    if not seen.findings:
        out.print("[green]✓[/] No findings.")
    show_findings(seen.findings)


def check_facts(seen: CacheCheck) -> dict[str, Any]:
    """The check, for `--json`."""
    return {
        "address": seen.address,
        "status": seen.worst.value if seen.worst else "ok",
        "server": asdict(seen.server) | {"persists": seen.server.persists},
        "keys": seen.census.keys,
        "patterns": [_count_facts(count) for count in seen.census.counts if count.keys],
        "unknown": dict(seen.census.unknown),
        "findings": [finding_facts(finding) for finding in seen.findings],
    }


def show_plan(plan: Reconciliation) -> None:
    """A line for each pattern that is dropped or kept."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim bold")
    table.add_column("")
    table.add_column("keys", justify="right")
    table.add_column("pattern", no_wrap=True)
    table.add_column("because", overflow="fold")
    for action in Action:
        for one in plan.of(action):
            mark = Text(action, style=_ACTION_STYLES[action])
            table.add_row(mark, f"{one.keys:,}", Text(one.pattern), Text(one.because, style="dim"))
    out.print(f"{plan.address}, policy {plan.sessions}", markup=False)
    if plan.decisions:
        out.print(table)


def show_reconciled(plan: Reconciliation, done: Reconciled | None, *, dry_run: bool) -> None:
    """The closing line."""
    if not plan.dropped:
        out.print(f"[green]✓[/] Nothing to drop; {plan.kept:,} keys are kept.")
    elif done is None or dry_run:
        out.print(f"Dry run: {plan.dropped:,} keys would be dropped, {plan.kept:,} kept. Nothing was dropped.")
    else:
        out.print(f"[green]✓[/] {done.keys:,} keys dropped, {plan.kept:,} kept.")
        if plan.sessions == "drop-sessions":
            out.print("  All users must sign in again.")


def plan_facts(plan: Reconciliation, done: Reconciled | None) -> dict[str, Any]:
    """The plan and what was done, for `--json`."""
    return {
        "address": plan.address,
        "policy": plan.policy.model_dump(mode="json"),
        "decisions": [asdict(decision) for decision in plan.decisions],
        "to_drop": plan.dropped,
        "to_keep": plan.kept,
        "dropped": dict(done.dropped) if done else None,
    }


def _server_lines(server: CacheServer) -> list[tuple[str, str]]:
    limit = f"of {format_size(server.max_memory)}" if server.max_memory else "without a limit"
    kept = {True: "append-only file" if server.append_only else "snapshots", False: "off", None: "unknown"}
    ratio = "nothing read yet" if server.hit_ratio is None else f"{server.hit_ratio:.1%} hits"
    return [
        ("answers in", f"{server.ping_ms:.1f} ms, {server.clients} clients"),
        ("memory", f"{format_size(server.used_memory)} {limit}, {server.eviction_policy}, {server.evicted:,} evicted"),
        ("persistence", kept[server.persists]),
        ("reads", ratio),
    ]


def _show_census(seen: CacheCheck) -> None:
    counts = [count for count in seen.census.counts if count.keys]
    if not counts and not seen.census.unknown:
        out.print("  No keys.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim bold")
    for name in ("keys", "no TTL", "too long"):
        table.add_column(name, justify="right")
    table.add_column("longest / allowed", justify="right", no_wrap=True)
    table.add_column("pattern", no_wrap=True)
    if out.width >= _WIDE:
        table.add_column("what", overflow="fold")
    rows = [
        *(_census_row(count) for count in counts),
        *((f"{keys:,}", "", "", "", Text(kind), Text(UNKNOWN, style="dim")) for kind, keys in seen.census.unknown),
    ]
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    out.print(table)


def _census_row(count: KeyCount) -> tuple[Text | str, ...]:
    declared = count.rule.declared
    longest = format_duration(round(count.longest_ms / 1000)) if count.longest_ms else "-"
    allowed = f" / {format_duration(declared.longest_life.total_seconds())}" if declared else ""
    return (
        f"{count.keys:,}",
        Text(f"{count.for_ever:,}" if count.for_ever else "", style="yellow"),
        Text(f"{count.too_long:,}" if count.too_long else "", style="yellow"),
        longest + allowed,
        Text(count.rule.pattern),
        Text(declared.what if declared else count.rule.because, style="dim"),
    )


def _count_facts(count: KeyCount) -> dict[str, Any]:
    declared = count.rule.declared
    return {
        "pattern": count.rule.pattern,
        "on_reconcile": count.rule.action.value,
        "keys": count.keys,
        "without_ttl": count.for_ever,
        "too_long": count.too_long,
        "longest_s": round(count.longest_ms / 1000, 3),
        "allowed_s": declared.longest_life.total_seconds() if declared else None,
    }
