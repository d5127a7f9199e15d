"""What is wrong with Dagster's automation. Facts in, findings out; pure.

1. All daemon threads report; if none does, nothing else is reported.
2. Every schedule and sensor that is on ticked when it was last due, and did not fail. One whose newest tick is in the
   future does nothing until then: a clock ran ahead.
3. No run is queued longer than its job's interval, and no job's runs pile up.
4. Failed runs that Dagster should retry were retried; runs that ended hold no pool slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from tmi_ops.automation.cron import next_time
from tmi_ops.automation.facts import AutomationFacts, Instigator, Kind
from tmi_ops.automation.naming import plain_name
from tmi_ops.checks.finding import Finding, Severity, advise, worst_first
from tmi_ops.text import format_duration

# Daemons report every 30 s; Dagster's own UI calls them dead after 30 min, which is long at night.
DAEMON_LATE = timedelta(minutes=5)
# A busy daemon ticks late.
TICK_GRACE = timedelta(minutes=5)
LOOKS_MISSED = 3
CLOCKS_DIFFER = timedelta(minutes=2)
SHORTEST_PACE, LONGEST_PACE = timedelta(minutes=10), timedelta(days=1)
# For jobs without a schedule: verifications and drills that a guard launched wait for each other.
PACE_OF_THE_OTHERS = timedelta(hours=6)
LONGEST_QUEUE_OF_A_JOB = 3
REPEAT_LATE = timedelta(minutes=10)
_SHOWN = 5
_FREE = "UPDATE concurrency_slots SET run_id = NULL, step_key = NULL"
_TO_START = advise("dagster-daemon run  # as a service (see Dagster's docs: deployment); embedded: tmi-ops up")
_TO_SEE = advise(
    "check whether the code location loads: see the daemon's log, or run",
    "dagster definitions validate -m tmi_ops.definitions  # with the daemon's variables",
)


def judge_automation(facts: AutomationFacts, timezone: str) -> tuple[Finding, ...]:
    """All findings, the worst first.

    Args:
        timezone: of the schedules.
    """
    daemon = tuple(judge_daemon(facts))
    if any(one.severity is Severity.CRITICAL for one in daemon):
        return daemon
    return worst_first([*daemon, *judge_ticks(facts, timezone), *judge_runs(facts, timezone)])


def judge_daemon(facts: AutomationFacts) -> Iterator[Finding]:
    if not facts.daemons:
        what = "Dagster's daemon has never reported: no schedule or sensor will run"
        yield Finding(Severity.CRITICAL, "daemon", what, "it was never started with this database", _TO_START)
        return
    late = [one for one in facts.daemons if facts.now - one.reported_at > DAEMON_LATE]
    if len(late) == len(facts.daemons):
        silent = format_duration((facts.now - max(one.reported_at for one in late)).total_seconds())
        what = f"Dagster's daemon has not reported for {silent}: no schedule or sensor will run"
        cause = "it is not running, or cannot write to its database"
        yield Finding(Severity.CRITICAL, "daemon", what, cause, _TO_START)
        return
    for one in facts.daemons:
        if one.error:
            again = advise("fix the error, then restart the daemon")
            yield Finding(Severity.CRITICAL, one.name, f"{one.name}: {one.error}", "it runs but fails", again)
    for one in late:
        silent = format_duration((facts.now - one.reported_at).total_seconds())
        why = "this daemon thread hangs, or belongs to a feature that was switched off"
        what = f"{one.name} last reported {silent} ago; the other daemon threads are current"
        yield Finding(Severity.WARNING, one.name, what, why, advise("restart the daemon"))


def judge_ticks(facts: AutomationFacts, timezone: str) -> Iterator[Finding]:
    for one in facts.instigators:
        if not one.on:
            continue
        if one.last is not None and one.last.at > facts.now + CLOCKS_DIFFER:
            yield _ahead(one, facts.now)
        elif one.last is not None and one.last.error:
            what = f"the {one.kind} {one.name} failed {_ago(facts.now, one.last.at)} ago: {one.last.error}"
            cause = "its code fails before a run starts: it does not load, or a setting is missing"
            yield Finding(Severity.CRITICAL, one.name, what, cause, _TO_SEE)
        elif (due := _overdue_since(one, facts.now, timezone)) is not None:
            what = f"the {one.kind} {one.name} was due {_ago(facts.now, due)} ago and did not tick"
            cause = "the code location does not load, or the daemon is overloaded"
            yield Finding(Severity.CRITICAL, one.name, what, cause, _TO_SEE)


def judge_runs(facts: AutomationFacts, timezone: str) -> Iterator[Finding]:
    for run in facts.waiting[:_SHOWN]:
        pace = pace_of(facts, run.job, timezone)
        if facts.now - run.since > pace:
            what = f"run {run.run_id[:8]} of {run.job} has been queued for {_ago(facts.now, run.since)}"
            cause = "its lane or pool is taken by runs that take too long, or whose process is gone"
            advice = advise("see Runs in Dagster's UI: cancel runs that hang, or this one")
            yield Finding(Severity.CRITICAL, run.job, what, cause, advice)
    for job, number in Counter(run.job for run in facts.waiting).items():
        if number > LONGEST_QUEUE_OF_A_JOB:
            what = f"{number} runs of {job} are queued"
            yield Finding(
                Severity.WARNING, job, what, "they are launched faster than they end", advise("see Runs in the UI")
            )
    for run in facts.unrepeated:
        if facts.now - run.since > REPEAT_LATE:
            what = f"run {run.run_id[:8]} of {run.job} failed {_ago(facts.now, run.since)} ago and was not retried"
            advice = advise(f"launch {run.job} again")
            yield Finding(Severity.CRITICAL, run.job, what, "Dagster should have retried it", advice)
    for held in facts.held:
        what = f"run {held.run_id[:8]} has ended but still holds a slot of the pool {held.pool}"
        cause = "run_monitoring.free_slots_after_run_end_seconds is not set in dagster.yaml, or the daemon is late"
        free = f"{_FREE} WHERE run_id = '{held.run_id}';  -- in Dagster's database"
        yield Finding(
            Severity.CRITICAL, held.pool, what, cause, advise("free it in the UI (Deployment, Concurrency), or", free)
        )


def pace_of(facts: AutomationFacts, job: str, timezone: str) -> timedelta:
    """How long a run of the job may be queued: until the next one is due, within limits."""
    paces = [_pace(one.crons, facts.now, timezone) for one in facts.instigators if one.crons and _begins(one.name, job)]
    return max(SHORTEST_PACE, min(*paces, LONGEST_PACE)) if paces else PACE_OF_THE_OTHERS


def _pace(crons: tuple[str, ...], now: datetime, timezone: str) -> timedelta:
    first = _next(crons, now, timezone)
    second = _next(crons, first, timezone) if first else None
    return second - first if first and second else LONGEST_PACE


def _begins(schedule: str, job: str) -> bool:
    """Whether a schedule is of a job: its name contains the job's, as in `wal_catch_up_within_the_rpo`."""
    return plain_name(job) in plain_name(schedule)


def _overdue_since(one: Instigator, now: datetime, timezone: str) -> datetime | None:
    """When it was due and did not tick; None: it was not, or that is unknown."""
    after = max(one.last.at, one.since) if one.last else one.since
    if one.kind is Kind.SENSOR:
        due = after + one.every if one.every else None
        patience = TICK_GRACE + LOOKS_MISSED * (one.every or timedelta(0))
    else:
        due, patience = _next(one.crons, after, timezone), TICK_GRACE
    return due if due is not None and now - due > patience else None


def _next(crons: tuple[str, ...], after: datetime, timezone: str) -> datetime | None:
    try:
        return next_time(crons, after, timezone)
    except (ValueError, OverflowError):
        return None


def _ahead(one: Instigator, now: datetime) -> Finding:
    at = one.last.at if one.last else now
    what = f"the newest tick of the {one.kind} {one.name} is in the future ({at:%Y-%m-%d %H:%M} UTC)"
    sql = "DELETE FROM job_ticks WHERE timestamp > now() AT TIME ZONE 'UTC';  -- in Dagster's database"
    switch = f"switch {one.name} off and on again: dagster {one.kind} stop, then start, {one.name}"
    return Finding(
        Severity.CRITICAL,
        one.name,
        what,
        "a clock ran ahead and was set back: Dagster does not tick again before that time",
        advise(switch, sql),
    )


def _ago(now: datetime, moment: datetime) -> str:
    return format_duration(max(0.0, (now - moment).total_seconds()))
