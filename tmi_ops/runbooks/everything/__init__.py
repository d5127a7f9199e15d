"""Runbook 3: only the store and its key are left. Recover into a new cluster and put it into service."""
