"""What is wrong with that which should run by itself. Facts in, findings out; pure.

1. The daemon reports, all of it; where none does, nothing else is told.
2. Every schedule and sensor that is on was at work when it was due last, and did not fail. One whose newest tick lies
   in the future is silent until then: Dagster waits for a clock that ran ahead.
3. No run waits longer than its job's pace, and no job's runs pile up.
4. What Dagster meant to repeat was repeated; what is over holds no place in a pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from tmi_ops.automation.cron import next_time
from tmi_ops.automation.facts import AutomationFacts, Instigator, Kind
from tmi_ops.automation.naming import plain_name
from tmi_ops.checks.finding import Finding, Severity, advise, worst_first
from tmi_ops.words import time_words

# Daemons report every 30 s; Dagster's own UI calls them dead after 30 min, which is long at night.
DAEMON_LATE = timedelta(minutes=5)
# A busy daemon begins what is due some time later.
TICK_GRACE = timedelta(minutes=5)
LOOKS_MISSED = 3
CLOCKS_DIFFER = timedelta(minutes=2)
SHORTEST_PACE, LONGEST_PACE = timedelta(minutes=10), timedelta(days=1)
# Of what no schedule begins: proofs and drills that a guard has begun wait for each other.
PACE_OF_THE_OTHERS = timedelta(hours=6)
LONGEST_QUEUE_OF_A_JOB = 3
REPEAT_LATE = timedelta(minutes=10)
_SHOWN = 5
_FREE = "UPDATE concurrency_slots SET run_id = NULL, step_key = NULL"
_TO_START = advise("dagster-daemon run  # as a service (docs of Dagster: deployment); embedded: tmi-ops up")
_TO_SEE = advise(
    "see whether the code location loads: the daemon's log, or",
    "dagster definitions validate -m tmi_ops.definitions  # with the daemon's variables: shows why",
)


def judge_automation(facts: AutomationFacts, timezone: str) -> tuple[Finding, ...]:
    """Everything that is wrong, the worst first.

    Args:
        timezone: of the schedules.
    """
    daemon = tuple(judge_daemon(facts))
    if any(one.severity is Severity.CRITICAL for one in daemon):
        return daemon
    return worst_first([*daemon, *judge_ticks(facts, timezone), *judge_runs(facts, timezone)])


def judge_daemon(facts: AutomationFacts) -> Iterator[Finding]:
    if not facts.daemons:
        what = "Dagster's daemon has never reported: nothing of this will begin"
        yield Finding(Severity.CRITICAL, "daemon", what, "it was never started with these records", _TO_START)
        return
    late = [one for one in facts.daemons if facts.now - one.reported_at > DAEMON_LATE]
    if len(late) == len(facts.daemons):
        silent = time_words((facts.now - max(one.reported_at for one in late)).total_seconds())
        what = f"Dagster's daemon has not reported for {silent}: nothing of this will begin"
        yield Finding(Severity.CRITICAL, "daemon", what, "it is not running, or cannot write to its records", _TO_START)
        return
    for one in facts.daemons:
        if one.error:
            again = advise("mend what the error names, then restart the daemon")
            yield Finding(
                Severity.CRITICAL, one.name, f"{one.name}: {one.error}", "it runs and fails at its work", again
            )
    for one in late:
        silent = time_words((facts.now - one.reported_at).total_seconds())
        why = "this thread of the daemon hangs, or belongs to a feature that is switched off since"
        what = f"{one.name} last reported {silent} ago, the others now"
        yield Finding(Severity.WARNING, one.name, what, why, advise("restart the daemon"))


def judge_ticks(facts: AutomationFacts, timezone: str) -> Iterator[Finding]:
    for one in facts.instigators:
        if not one.on:
            continue
        if one.last is not None and one.last.at > facts.now + CLOCKS_DIFFER:
            yield _ahead(one, facts.now)
        elif one.last is not None and one.last.error:
            what = f"the {one.kind} {one.name} failed {_ago(facts.now, one.last.at)} ago: {one.last.error}"
            cause = "it fires and its code fails before a run begins (not loaded, or a setting lacks)"
            yield Finding(Severity.CRITICAL, one.name, what, cause, _TO_SEE)
        elif (due := _overdue_since(one, facts.now, timezone)) is not None:
            what = f"the {one.kind} {one.name} was due {_ago(facts.now, due)} ago and was not looked at"
            cause = "the code location does not load, or the daemon is too busy to look"
            yield Finding(Severity.CRITICAL, one.name, what, cause, _TO_SEE)


def judge_runs(facts: AutomationFacts, timezone: str) -> Iterator[Finding]:
    for run in facts.waiting[:_SHOWN]:
        pace = pace_of(facts, run.job, timezone)
        if facts.now - run.since > pace:
            what = f"run {run.run_id[:8]} of {run.job} has waited for its turn for {_ago(facts.now, run.since)}"
            cause = "its lane or its pool is taken by runs that last too long, or that are gone"
            advice = advise("see Runs in Dagster's UI: cancel what hangs, or cancel this one")
            yield Finding(Severity.CRITICAL, run.job, what, cause, advice)
    for job, number in Counter(run.job for run in facts.waiting).items():
        if number > LONGEST_QUEUE_OF_A_JOB:
            what = f"{number} runs of {job} wait for their turn"
            yield Finding(
                Severity.WARNING, job, what, "they are begun faster than they end", advise("see Runs in the UI")
            )
    for run in facts.unrepeated:
        if facts.now - run.since > REPEAT_LATE:
            what = f"run {run.run_id[:8]} of {run.job} failed {_ago(facts.now, run.since)} ago and was not repeated"
            advice = advise(f"launch {run.job} again")
            yield Finding(Severity.CRITICAL, run.job, what, "Dagster meant to repeat it", advice)
    for held in facts.held:
        what = f"run {held.run_id[:8]} is over and still holds a place in the pool {held.pool}"
        cause = "run_monitoring.free_slots_after_run_end_seconds is not set in dagster.yaml, or the daemon is behind"
        free = f"{_FREE} WHERE run_id = '{held.run_id}';  -- in Dagster's records"
        yield Finding(
            Severity.CRITICAL, held.pool, what, cause, advise("free it in the UI (Deployment, Concurrency), or", free)
        )


def pace_of(facts: AutomationFacts, job: str, timezone: str) -> timedelta:
    """How long a run of the job may wait: as long as until the next one would be due, within limits."""
    paces = [_pace(one.crons, facts.now, timezone) for one in facts.instigators if one.crons and _begins(one.name, job)]
    return max(SHORTEST_PACE, min(*paces, LONGEST_PACE)) if paces else PACE_OF_THE_OTHERS


def _pace(crons: tuple[str, ...], now: datetime, timezone: str) -> timedelta:
    first = _next(crons, now, timezone)
    second = _next(crons, first, timezone) if first else None
    return second - first if first and second else LONGEST_PACE


def _begins(schedule: str, job: str) -> bool:
    """Schedules are named for their job: `wal_catch_up_within_the_rpo`, `hourly_health`."""
    return plain_name(job) in plain_name(schedule)


def _overdue_since(one: Instigator, now: datetime, timezone: str) -> datetime | None:
    """When it was due and did nothing; None: it was not, or nobody can tell."""
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
    what = f"the newest tick of the {one.kind} {one.name} lies in the future ({at:%Y-%m-%d %H:%M} UTC)"
    sql = "DELETE FROM job_ticks WHERE timestamp > now() AT TIME ZONE 'UTC';  -- in Dagster's records"
    switch = f"switch {one.name} off and on again: dagster {one.kind} stop, then start, {one.name}"
    return Finding(
        Severity.CRITICAL,
        one.name,
        what,
        "a clock ran ahead and came back: Dagster looks again only when that moment has come",
        advise(switch, sql),
    )


def _ago(now: datetime, moment: datetime) -> str:
    return time_words(max(0.0, (now - moment).total_seconds()))
