"""`tmi-ops cache`: check TMI's Redis, and reconcile it after a recovery of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import dry_run_option, json_option, quiet_option, strict_option, yes_option

if TYPE_CHECKING:
    from tmi_ops.settings import SessionPolicy

SOMETHING_CRITICAL = 1
POLICIES: tuple[SessionPolicy, ...] = ("drop-sessions", "keep-sessions")


@click.group()
def cache() -> None:
    """Check TMI's Redis (6 or later) or Valkey, or reconcile it after a recovery.

    The connection is set by REDIS_HOST, _PORT, _PASSWORD, _DB, _TLS_ENABLED and _TLS_CA_FILE, or by the server's
    TMI_REDIS_URL.
    """


@cache.command()
@json_option
@strict_option
@quiet_option
def check(as_json: bool, strict: bool, quiet: bool) -> int:
    """Check the cache: memory, evictions, persistence, and the keys of every kind. Changes nothing.

    Counts keys with SCAN and compares their TTL with the longest that TMI sets.

    Exit codes: 0 nothing critical, 1 something critical (with --strict also a warning), 2 could not check.
    """
    from tmi_ops.cache.checking import check_cache
    from tmi_ops.cache.connection import connected, require_cache
    from tmi_ops.checks.finding import Severity
    from tmi_ops.cli.cache_view import check_facts, show_check
    from tmi_ops.cli.environment import reporting
    from tmi_ops.settings import load_settings

    settings = load_settings()
    redis = require_cache(settings.redis)
    with connected(redis) as client, reporting(quiet or as_json) as report:
        seen = check_cache(client, settings.cache, redis.describe(), report)
    if as_json:
        echo_json(check_facts(seen))
    else:
        show_check(seen)
    bad = seen.at(Severity.CRITICAL) or (strict and seen.at(Severity.WARNING))
    return SOMETHING_CRITICAL if bad else 0


@cache.command()
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="Whether sessions are dropped, so that all users sign in again. Default: TMI_OPS_CACHE_SESSIONS.",
)
@dry_run_option
@yes_option
@json_option
@quiet_option
def reconcile(policy: SessionPolicy | None, dry_run: bool, yes: bool, as_json: bool, quiet: bool) -> int:
    """Drop stale cache entries after a restore, a point-in-time recovery or a row rescue.

    Run it before the application connects again. Drops cached copies of rows and settings, jobs, and with drop-sessions
    (the default) sessions and refresh tokens. Keeps revoked tokens, rate limits, sign-ins in progress, and all keys
    that are not TMI's. --json needs --dry-run or --yes.

    Exit codes: 0 done, or nothing to do, 2 error.
    """
    from tmi_ops.cache.connection import connected, require_cache
    from tmi_ops.cache.reconciliation import read_and_plan
    from tmi_ops.cache.reconciliation import reconcile as drop
    from tmi_ops.cli.cache_view import plan_facts, show_plan, show_reconciled
    from tmi_ops.cli.environment import reporting
    from tmi_ops.settings import load_settings

    if as_json and not (dry_run or yes):
        raise click.UsageError("--json needs --dry-run or --yes.")
    settings = load_settings()
    wanted = settings.cache.model_copy(update={"sessions": policy}) if policy else settings.cache
    redis = require_cache(settings.redis)
    with connected(redis) as client:
        with reporting(quiet or as_json) as report:
            plan = read_and_plan(client, wanted, redis.describe(), report)
        if not as_json:
            show_plan(plan)
        done = None
        if not dry_run and plan.dropped:
            if not yes:
                click.confirm(f"Drop {plan.dropped:,} keys from {plan.address}?", abort=True)
            with reporting(quiet or as_json) as report:
                done = drop(plan, client, report)
    if as_json:
        echo_json(plan_facts(plan, done))
    else:
        show_reconciled(plan, done, dry_run=dry_run)
    return 0
