"""What every asset shares: owners, retries, pools, and where its steps run."""

from __future__ import annotations

from dagster import Backoff, Jitter, RetryPolicy, in_process_executor

OWNERS = ["team:tmi-operations"]

# A server that restarts or a store that throttles is back within minutes; whatever lasts longer needs a person.
RETRIES = RetryPolicy(max_retries=3, delay=15, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)

# Our runs have one step at a time: a process of its own for each would only cost its start.
EXECUTOR = in_process_executor


def pool(environment: str, what: str) -> str:
    """A pool of one environment. dagster.yaml lets one step of a pool run at a time, across all runs."""
    return f"{environment}_{what}"
