"""Runbook for accidental deletion or change: restore rows and columns, then drop stale copies from the cache."""
