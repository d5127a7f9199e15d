"""The runbook for accidental deletion or change: rows and columns come back; the cache drops its stale copies."""
