"""The runbook for accidental deletion or change: rows come back from the past, the cache drops its stale copies."""
