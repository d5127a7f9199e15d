"""Runbook 3: nothing is left but the store and its key. A new cluster, from there into service."""
