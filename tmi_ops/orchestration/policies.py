"""What every asset shares: owners, retries, kinds."""

from __future__ import annotations

from dagster import Backoff, Jitter, RetryPolicy

OWNERS = ["team:tmi-operations"]

# A server that restarts or a store that throttles is back within minutes; whatever lasts longer needs a person.
RETRIES = RetryPolicy(max_retries=3, delay=15, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)
