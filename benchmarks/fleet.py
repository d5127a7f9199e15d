"""What a fleet costs the sensors: simulated environments, judged and decided upon by the code that the sensors run.

    python -m benchmarks.fleet

A tick is one look of `rpo_guard`, `rto_guard` and `wal_stream_guard` at every environment of the fleet: the cursor is
read, the facts judged, a cure, an alert or a recovery notice decided, the cursor written. Reading store and server is
not in it: each environment's own code server does so, side by side, and networks decide how long it takes, not the
fleet's size.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import click

from tmi_ops.objectives.acting import Decision, Judged, Memory, Pace, Topic, decide
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.rto import forecast_rto
from tmi_ops.objectives.stream import judge_stream
from tmi_ops.settings import OBJECTIVES, Objectives
from tmi_ops_tests.objectives.facts import ago, facts, reach, receiver, server, slot

SIZES = (50, 100, 250, 500)
JUDGES: Mapping[Topic, Callable[[RecoverabilityFacts, Objectives], Judged]] = {
    Topic.RPO: judge_rpo,
    Topic.RTO: forecast_rto,
    Topic.STREAM: judge_stream,
}


@dataclass
class Simulated:
    """One environment: what is read of it, what it promises, and the cursors that Dagster keeps for its sensors."""

    facts: RecoverabilityFacts
    objectives: Objectives
    cursors: dict[Topic, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """CPU seconds of each tick of the whole fleet, bytes at its peak during one, and what its ticks led to."""

    size: int
    ticks: Sequence[float]
    peak: int
    alerts: int
    orders: int


@click.command()
@click.option("--ticks", default=30, show_default=True, help="Ticks of each fleet; the median counts.")
def main(ticks: int) -> None:
    """Measure fleets of growing size and print the table."""
    click.echo(
        "| environments | CPU ms a tick, median | slowest | µs an environment | peak memory kB | kB an environment |"
    )
    click.echo("| ---: | ---: | ---: | ---: | ---: | ---: |")
    tick(fleet_of(SIZES[0]), datetime.now(UTC))  # what is imported and compiled once is not the fleet's
    for size in SIZES:
        found = measure(size, ticks)
        median = statistics.median(found.ticks)
        click.echo(
            f"| {size} | {median * 1e3:.1f} | {max(found.ticks) * 1e3:.1f} | {median / size * 1e6:.0f} "
            f"| {found.peak / 1e3:.0f} | {found.peak / size / 1e3:.2f} |"
        )
        assert found.alerts, "a fleet in which some are in trouble tells of it"
        assert found.orders, "and begins cures"


def measure(size: int, ticks: int) -> Measured:
    """Ticks a minute apart by the simulated clock: cooldowns pass, cures are begun again, alerts stay open."""
    fleet, start = fleet_of(size), datetime.now(UTC)
    durations, alerts, orders = [], 0, 0
    gc.collect()
    for number in range(ticks):
        begun = time.process_time()
        decisions = tick(fleet, start + timedelta(minutes=number))
        durations.append(time.process_time() - begun)
        alerts += sum(decision.alert is not None for decision in decisions)
        orders += sum(decision.order is not None for decision in decisions)
    return Measured(size, durations, _peak(size, start), alerts, orders)


def tick(fleet: Sequence[Simulated], now: datetime) -> list[Decision]:
    """One look of every sensor at every environment; all decisions at once in memory, which is the worst case."""
    return [_look(environment, topic, now) for environment in fleet for topic in Topic]


def fleet_of(size: int) -> list[Simulated]:
    """Of every five: three are well, one has lost its receiver for a while, one for long."""
    made = [_environment(number) for number in range(size)]
    names = [f"tenant{number:04d}" for number in range(size)]
    return [
        Simulated(replace(read, environment=name), promise) for name, (read, promise) in zip(names, made, strict=True)
    ]


def _environment(number: int) -> tuple[RecoverabilityFacts, Objectives]:
    promise = OBJECTIVES[("production", "staging")[number % 2]]
    if number % 5 < 3:
        return facts(), promise
    behind = promise.rpo * (0.8 if number % 5 == 3 else 3)
    late = {
        "verified": reach(ago(minutes=behind / timedelta(minutes=1))),
        "newest": reach(ago(minutes=behind / timedelta(minutes=1))),
        "server": server(slot=slot(active=False)),
        "receiver": receiver(at_work=False, age=behind),
    }
    return facts(**late), promise


def _look(environment: Simulated, topic: Topic, now: datetime) -> Decision:
    memory = Memory.of(environment.cursors.get(topic))
    judged = JUDGES[topic](environment.facts, environment.objectives)
    objective = environment.objectives.rto if topic is Topic.RTO else environment.objectives.rpo
    decision = decide(topic, judged, memory, now, Pace.of(objective))
    environment.cursors[topic] = decision.memory.model_dump_json()
    return decision


def _peak(size: int, now: datetime) -> int:
    """Bytes that the fleet's facts, cursors and decisions of one tick take at their peak."""
    gc.collect()
    tracemalloc.start()
    fleet = fleet_of(size)
    tick(fleet, now)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
